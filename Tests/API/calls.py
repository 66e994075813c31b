#!/usr/bin/env python3
"""Calls a gateway through the official OpenAI client, and checks what comes back.

  ./calls.py http://127.0.0.1:8000 PICTURE ANSWER

ANSWER is what the model says to "What is in the picture?". Prints a line a call; exits with 1 when
one did not do as it should.
"""
import base64
import http.client
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import openai

URL, PICTURE, ANSWER = sys.argv[1:4]
client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
MODEL = client.models.list().data[0].id
SHOWN = "data:image/jpeg;base64," + base64.b64encode(Path(PICTURE).read_bytes()).decode()
QUESTION = "What is in the picture?"
failures, calls = [], []


def call(function):
    calls.append(function)
    return function


def seen(text=QUESTION, url=SHOWN):
    return [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]}]


def said(text):
    return [{"role": "user", "content": text}]


def ask(messages=None, **options):
    return client.chat.completions.create(
        model=options.pop("model", MODEL), messages=messages or seen(), **options)


def refused(kind, word, messages=None, **options):
    try:
        ask(messages, **options)
    except kind as error:
        assert word in str(error), f"{word!r} is not in {error}"
        assert set(error.body) == {"message", "type", "param", "code"}, error.body
        return error
    raise AssertionError("it was answered")


def streamed(messages=None, **options):
    return list(ask(messages, stream=True, **options))


def text(chunks, index=0):
    return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices
                   if c.index == index)


def post(path, body, headers=None):
    place = urlsplit(URL)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    connection.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"null")


def get(path):
    place = urlsplit(URL)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def running():
    for line in get("/metrics")[1].splitlines():
        if line.startswith("vllm:num_requests_running"):
            return float(line.split()[-1])
    raise AssertionError("no vllm:num_requests_running")


@call
def lists_the_model():
    model, = client.models.list().data
    assert model.object == "model" and model.owned_by == "chiasm"


@call
def finds_the_model():
    assert client.models.retrieve(MODEL).id == MODEL


@call
def knows_no_other_model():
    try:
        client.models.retrieve("gpt-4o")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
    else:
        raise AssertionError("it was found")


@call
def answers_about_a_picture():
    answer = ask()
    choice, = answer.choices
    assert choice.message.content == ANSWER, choice
    assert choice.message.role == "assistant" and choice.finish_reason == "stop"
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert abs(answer.created - time.time()) < 60


@call
def answers_without_a_picture():
    assert ask(said("What is the color of grass?")).choices[0].message.content


@call
def takes_a_system_message():
    answer = ask([{"role": "system", "content": "Answer the questions."}, *seen()])
    assert answer.choices[0].message.content == ANSWER


@call
def takes_a_developer_message():
    answer = ask([{"role": "developer", "content": "Answer the questions."}, *seen()])
    assert answer.choices[0].message.content == ANSWER


@call
def takes_several_turns():
    answer = ask([*seen(), {"role": "assistant", "content": ANSWER}, *said("这是什么？")])
    assert answer.choices[0].message.content


@call
def takes_two_pictures():
    one = ask().usage.prompt_tokens
    two = [{"role": "user", "content": seen()[0]["content"][:1] * 2 + [
        {"type": "text", "text": QUESTION}]}]
    assert ask(two).usage.prompt_tokens > one + 10


@call
def puts_pictures_where_the_text_says():
    placed = [{"role": "user", "content": [
        {"type": "text", "text": f"<image>\n{QUESTION}"},
        {"type": "image_url", "image_url": {"url": SHOWN}}]}]
    assert ask(placed).choices[0].message.content == ANSWER


@call
def streams():
    chunks = streamed()
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(c.choices[0].delta.role is None for c in chunks[1:])
    assert text(chunks) == ANSWER
    assert [c.choices[0].finish_reason for c in chunks][-1] == "stop"
    assert all(c.object == "chat.completion.chunk" for c in chunks)
    assert len({c.id for c in chunks}) == 1 and all(c.usage is None for c in chunks)


@call
def streams_usage_at_the_end():
    chunks = streamed(stream_options={"include_usage": True})
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert all(c.usage is None for c in chunks[:-1])
    assert text(chunks) == ANSWER


@call
def gives_several_answers():
    answer = ask(n=3)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert {c.message.content for c in answer.choices} == {ANSWER}
    assert answer.usage.prompt_tokens == ask().usage.prompt_tokens


@call
def streams_several_answers():
    chunks = streamed(n=2)
    assert text(chunks, 0) == text(chunks, 1) == ANSWER


@call
def answers_differ_when_sampled():
    answer = ask(n=6, temperature=2.0, max_tokens=12, seed=5)
    assert len({c.message.content for c in answer.choices}) > 1


@call
def repeats_a_seed():
    first, again = (ask(temperature=2.0, seed=7, max_tokens=16) for _ in range(2))
    assert first.choices[0].message.content == again.choices[0].message.content


@call
def streaming_changes_no_sample():
    options = dict(temperature=1.5, seed=-3, max_tokens=16, top_p=0.9)
    assert text(streamed(**options)) == ask(**options).choices[0].message.content


@call
def narrow_top_p_is_greedy():
    answer = ask(temperature=2.0, top_p=1e-6)
    assert answer.choices[0].message.content == ANSWER


@call
def takes_top_k():
    answer = ask(temperature=2.0, extra_body={"top_k": 1})
    assert answer.choices[0].message.content == ANSWER


@call
def stops_at_max_tokens():
    answer = ask(max_tokens=2)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 2
    assert ANSWER.startswith(answer.choices[0].message.content)


@call
def stops_at_max_completion_tokens():
    assert ask(max_completion_tokens=1).usage.completion_tokens == 1


@call
def stops_at_a_text():
    middle = ANSWER[len(ANSWER) // 2:][:2]
    answer = ask(stop=middle)
    assert answer.choices[0].message.content == ANSWER[:ANSWER.index(middle)]
    assert answer.choices[0].finish_reason == "stop"


@call
def stops_at_one_of_several_texts():
    assert ask(stop=["never said", ANSWER[-1]]).choices[0].message.content == ANSWER[:-1]


@call
def tells_log_probabilities():
    answer = ask(logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for position in content:
        assert position.logprob <= 0 and len(position.top_logprobs) == 3
        assert position.top_logprobs[0].token == position.token
    said_bytes = bytes(b for p in content for b in p.bytes)
    assert ANSWER.encode() in said_bytes


@call
def tells_log_probabilities_while_streaming():
    chunks = streamed(logprobs=True)
    count = sum(len(c.logprobs.content) for chunk in chunks for c in chunk.choices if c.logprobs)
    assert count == ask().usage.completion_tokens


@call
def passes_over_unknown_fields():
    answer = ask(extra_body={"chat_template_kwargs": {}, "nonsense": [1]}, user="somebody")
    assert answer.choices[0].message.content == ANSWER


@call
def refuses_another_model():
    assert refused(openai.NotFoundError, "does not exist", model="gpt-4o").param == "model"


@call
def refuses_a_temperature():
    assert refused(openai.BadRequestError, "0.0 to 2.0", temperature=3).param == "temperature"


@call
def refuses_too_many_answers():
    refused(openai.BadRequestError, "expected 1 to", n=1000)


@call
def refuses_no_messages():
    try:
        client.chat.completions.create(model=MODEL, messages=[])
    except openai.BadRequestError as error:
        assert error.param == "messages"
    else:
        raise AssertionError("it was answered")


@call
def refuses_an_unknown_role():
    refused(openai.BadRequestError, "no role", [{"role": "wizard", "content": "x"}])


@call
def refuses_turns_out_of_order():
    refused(openai.BadRequestError, "alternate", said("a") + said("b"))


@call
def refuses_bad_base64():
    refused(openai.BadRequestError, "base64", seen(url="data:image/png;base64,!!!"))


@call
def refuses_what_is_no_picture():
    refused(openai.BadRequestError, "", seen(url="data:image/png;base64,aGVsbG8="))


@call
def fetches_nothing():
    refused(openai.BadRequestError, "network", seen(url="http://127.0.0.1:9/x.png"))


@call
def reads_no_file():
    refused(openai.PermissionDeniedError, "allowed", seen(url="file:///etc/passwd"))


@call
def refuses_a_long_answer():
    refused(openai.BadRequestError, "context", max_tokens=10**6)


@call
def refuses_what_is_no_json():
    status, body = post("/v1/chat/completions", b"{")
    assert status == 400 and body["error"]["type"] == "invalid_request_error", body


@call
def names_a_missing_field():
    status, body = post("/v1/chat/completions", json.dumps({"model": MODEL}))
    assert status == 400 and "messages" in body["error"]["message"], body


@call
def has_no_such_path():
    status, body = post("/v1/nothing", b"{}")
    assert status == 404, body


@call
def tokenizes_and_back():
    status, tokens = post("/tokenize", json.dumps({"prompt": "A cat and 猫"}))
    assert status == 200 and tokens["count"] == len(tokens["tokens"])
    status, back = post("/detokenize", json.dumps({"tokens": tokens["tokens"]}))
    assert status == 200 and back["prompt"] == "A cat and 猫", back


@call
def is_ready():
    status, body = get("/health/ready")
    stages = json.loads(body)["stages"]
    assert status == 200 and {"projector"} < {s["name"] for s in stages}
    assert get("/health/live")[0] == 200 and "chiasm_stage_up" in get("/metrics")[1]


@call
def answers_many_at_once():
    answers = [None] * 16
    def one(index):
        answers[index] = ask().choices[0].message.content
    threads = [threading.Thread(target=one, args=[i]) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [ANSWER] * 16, answers


@call
def ends_what_nobody_reads():
    stream = ask(stream=True, max_tokens=900, extra_body={"ignore_eos": True})
    next(iter(stream))
    assert running() == 1
    stream.close()
    deadline = time.time() + 10
    while running() > 0:
        assert time.time() < deadline, "it goes on"
        time.sleep(0.02)


@call
def ends_what_nobody_waits_for():
    place = urlsplit(URL)
    connection = http.client.HTTPConnection(place.hostname, place.port)
    connection.request("POST", "/v1/chat/completions", json.dumps(
        {"model": MODEL, "messages": said("Tell me."), "max_tokens": 900, "ignore_eos": True}))
    deadline = time.time() + 10
    while running() == 0:
        assert time.time() < deadline, "it does not begin"
        time.sleep(0.02)
    connection.close()
    while running() > 0:
        assert time.time() < deadline, "it goes on"
        time.sleep(0.02)


for function in calls:
    name = function.__name__.replace("_", " ")
    try:
        function()
        print(f"ok      {name}")
    except Exception as error:
        failures.append(name)
        print(f"FAILED  {name}: {type(error).__name__}: {error}")
print(f"{len(calls) - len(failures)} of {len(calls)} calls did as they should")
sys.exit(1 if failures else 0)
