"""A mesh of one process for each part, and questions to its gateway: what the scorers share."""
import contextlib
import json
import os
import subprocess
import tempfile
import time


@contextlib.contextmanager
def mesh(model, bin):
    """A gateway on standard streams, and the services behind it, while the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        processes, gateway = start(model, bin, folder)
        try:
            yield gateway
        finally:
            gateway.stdin.close()
            gateway.wait()
            for process in processes:
                process.terminate()
                process.wait()


def start(model, bin, folder):
    """A vision encoder, a projector and a language model, and the gateway."""
    addresses = {name: f"unix:{folder}/{name}" for name in ["vision", "projector", "language"]}
    stages = [("language", []), ("projector", ["--next", addresses["language"]]),
              ("vision", ["--next", addresses["projector"]])]
    processes = [
        subprocess.Popen([f"{bin}/chiasm-{name}", "--model", str(model), "--threads",
                          "1", "--listen", addresses[name], "--log-level", "error", *more])
        for name, more in stages]
    while not all(os.path.exists(f"{folder}/{name}") for name in addresses):
        if any(process.poll() is not None for process in processes):
            raise SystemExit("a service ended before it listened")
        time.sleep(0.1)
    gateway = subprocess.Popen(
        [f"{bin}/chiasm-gateway", "--model", str(model), "--stdio", "--log-level",
         "error"] + [f"--{name}={address}" for name, address in addresses.items()],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return processes, gateway


def ask(gateway, questions, max_tokens, window=32):
    """Greedy answers to (picture, question), a few of them under way at a time."""
    return [reply.get("text", f"error: {reply.get('error')}")
            for reply in replies(gateway, questions, max_tokens, window)]


def replies(gateway, questions, max_tokens, window=32):
    """What the gateway writes of each, in the order of the questions."""
    answers = {}
    for sent in range(len(questions) + window):
        if sent < len(questions):
            image, question = questions[sent]
            gateway.stdin.write(json.dumps(
                {"id": str(sent), "messages": [{"role": "user", "content": question}],
                 "images": [image], "max_tokens": max_tokens, "temperature": 0},
                ensure_ascii=False) + "\n")
            gateway.stdin.flush()
        if sent >= window - 1 and len(answers) < len(questions):
            reply = json.loads(gateway.stdout.readline())
            answers[int(reply["id"])] = reply
    while len(answers) < len(questions):
        reply = json.loads(gateway.stdout.readline())
        answers[int(reply["id"])] = reply
    return [answers[index] for index in range(len(questions))]
