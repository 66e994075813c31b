"""Writes labels.json beside this file: token ids and labels of random conversations.

An independent account of how the reference finds what is learnt (section by section: Hermes-2 by
groups around <|im_end|>, internvl_zh by rounds around </s>), on transformers' slow LlamaTokenizer.
Needs transformers==4.37.2 and sentencepiece:

    python make_labels.py
"""

import json
import os
import random
import shutil
import tempfile

from transformers import LlamaTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.dirname(HERE)
IGNORED = -100

WORDS = (
    "the a picture shows red green blue circle square 42 3.14 What? Yes. No, Name: (box) "
    "colours \u7ea2\u8272 \u56fe\u7247 caf\u00e9 na\u00efve \U0001f600 \u00a0 it's 70% "
    "<ref>cat</ref> [0.1, 0.25] a/b #1 <box>[[1,2]]</box> don't \u2014 \u201cquoted\u201d"
).split(" ")


def text(random, edges):
    words = [random.choice(WORDS) for _ in range(random.randint(1, 9))]
    joined = "".join(w + random.choice([" ", " ", " ", "\n", "  ", "\n\n"]) for w in words)
    joined = joined.rstrip() or "x"
    if edges:
        joined = random.choice(["", "", " ", "\n", "  "]) + joined
        joined += random.choice(["", "", "", " ", "\n"])
    return joined


def conversation(random, edges):
    images = random.choice([0, 1, 1, 1, 2])
    turns = []
    for index in range(random.choice([1, 1, 2, 3])):
        turns.append({"from": "human", "value": text(random, edges)})
        turns.append({"from": "gpt", "value": text(random, edges)})
    if images == 1 and random.random() < 0.7:
        turns[0]["value"] = "<image>\n" + turns[0]["value"]
    if images == 2:
        turns[0]["value"] = "<image>\n" + turns[0]["value"] + "<image>"
    if images == 0 and random.random() < 0.3:
        turns[0]["value"] += "<image>"
    if random.random() < 0.1:
        turns.insert(0, {"from": "gpt", "value": "Hello."})
    return ["p.png"] * images, turns


def said(images, turns):
    turns = [dict(t) for t in turns]
    if turns[0]["from"] == "gpt":
        turns = turns[1:]
    if not images:
        for turn in turns:
            turn["value"] = turn["value"].replace("<image>", "").replace("<query>", "")
    elif len(images) == 1 and "<image>" not in turns[0]["value"]:
        turns[0]["value"] = "<image>\n" + turns[0]["value"]
    return turns


def with_images(rendered, images, tokens):
    for _ in images:
        rendered = rendered.replace("<image>", "<img>" + "<IMG_CONTEXT>" * tokens + "</img>", 1)
    return rendered


def hermes(tokenizer, images, turns, tokens, limit):
    rendered = "<|im_start|>system\nAnswer the questions.<|im_end|>"
    for turn in said(images, turns):
        role = "user" if turn["from"] == "human" else "assistant"
        rendered += f"<|im_start|>{role}\n{turn['value']}<|im_end|>"
    rendered = with_images(rendered, images, tokens)
    ids = tokenizer(rendered, max_length=limit, truncation=True).input_ids
    labels = list(ids)
    total = sum(i != 0 for i in ids)
    delimiter = "<|im_end|><|im_start|>assistant\n"
    pieces = rendered.split("<|im_end|>")
    groups = ["<|im_end|>".join(pieces[:3])]
    for index in range(3, len(pieces), 2):
        groups.append("<|im_end|>".join(pieces[index : index + 2]))
    cursor = 0
    for group in groups:
        if group == "":
            break
        length = len(tokenizer(group).input_ids) + 1
        parts = group.split(delimiter)
        if len(parts) != 2:
            break
        instruction = len(tokenizer(parts[0] + delimiter).input_ids)
        labels[cursor : cursor + instruction] = [IGNORED] * len(
            labels[cursor : cursor + instruction]
        )
        cursor += length
    labels[cursor:] = [IGNORED] * len(labels[cursor:])
    masked = cursor < limit and cursor != total
    return ids, labels, masked


def chinese(tokenizer, images, turns, tokens, limit):
    rendered = " "
    for turn in said(images, turns):
        value = turn["value"]
        rendered += f"<human>: {value} " if turn["from"] == "human" else f"<bot>: {value}</s>"
    rendered = with_images(rendered, images, tokens)
    ids = tokenizer(rendered, max_length=limit, truncation=True).input_ids
    labels = list(ids)
    total = sum(i != tokenizer.pad_token_id for i in ids)
    labels[0] = IGNORED
    cursor = 1
    for group in rendered.split("</s>"):
        if group == "":
            break
        length = len(tokenizer(group).input_ids)
        parts = group.split(" <bot>: ")
        if len(parts) != 2:
            break
        # The beginning of the sequence, and the space at the end that goes with the answer.
        instruction = len(tokenizer(parts[0] + " <bot>: ").input_ids) - 2
        labels[cursor : cursor + instruction] = [IGNORED] * len(
            labels[cursor : cursor + instruction]
        )
        cursor += length
    labels[cursor:] = [IGNORED] * len(labels[cursor:])
    masked = cursor < limit and cursor != total
    return ids, labels, masked


def ranges(labels):
    found = []
    for index, label in enumerate(labels):
        if label == IGNORED:
            continue
        if found and found[-1][1] == index:
            found[-1][1] = index + 1
        else:
            found.append([index, index + 1])
    return found


def chinese_files():
    """A tokenizer as InternVL-Chat-V1.1 has it, on the vocabulary of text/prefix.model."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(os.path.join(FIXTURES, "text/prefix.model"), folder + "/tokenizer.model")
        size = LlamaTokenizer(folder + "/tokenizer.model").sp_model.get_piece_size()

    def token(content):
        flags = ["lstrip", "normalized", "rstrip", "single_word"]
        return {"content": content, "special": True, **{flag: False for flag in flags}}

    added = {str(i): token(t) for i, t in enumerate(["<unk>", "<s>", "</s>"])}
    for index, content in enumerate(["<img>", "</img>", "<IMG_CONTEXT>"]):
        added[str(size + index)] = token(content)
    configuration = {
        "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": added,
        "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>",
        "legacy": True, "model_max_length": 4096, "tokenizer_class": "LlamaTokenizer",
        "additional_special_tokens": ["<img>", "</img>", "<IMG_CONTEXT>"],
    }
    return {"tokenizer_config.json": json.dumps(configuration)}


def load(folder, files):
    folder = os.path.join(FIXTURES, folder)
    if not files:
        return LlamaTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as made:
        shutil.copy(os.path.join(FIXTURES, "text/prefix.model"), made + "/tokenizer.model")
        for name, content in files.items():
            open(os.path.join(made, name), "w").write(content)
        return LlamaTokenizer.from_pretrained(made)


def cases(folder, template, count, seed, files=None):
    tokenizer = load(folder, files)
    shape = json.load(open(os.path.join(FIXTURES, folder, "config.json")))
    side = shape["force_image_size"] // shape["vision_config"]["patch_size"]
    tokens = int((side * shape["downsample_ratio"]) ** 2)
    out = []
    rng = random.Random(seed)
    for number in range(count):
        images, turns = conversation(rng, edges=number % 3 == 0)
        limit = 2048 if number % 4 else rng.randint(40, 120)
        find = hermes if template == "Hermes-2" else chinese
        ids, labels, masked = find(tokenizer, images, turns, tokens, limit)
        out.append(
            {
                "folder": folder,
                "template": template,
                "sample": {"image": images, "conversations": turns},
                "limit": limit,
                "ids": ids,
                "learnt": ranges(labels),
                "masked": masked,
                "wholeImages": ids.count(tokenizer.convert_tokens_to_ids("</img>"))
                == len(images),
            }
        )
    return out


def main():
    out = cases("golden/v12-tiny/checkpoint", "Hermes-2", 40, 1)
    out += cases("golden/v12-sharded-bf16/checkpoint", "Hermes-2", 10, 2)
    files = chinese_files()
    out += cases("golden/v12-tiny/checkpoint", "internvl_zh", 24, 3, files)
    lines = [json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in out]
    with open(os.path.join(HERE, "labels.json"), "w") as file:
        head = json.dumps(files, separators=(",", ":"))
        file.write('{"chineseFiles":' + head + ',"cases":[\n' + ",\n".join(lines) + "\n]}\n")
    print(len(out), "cases,", sum(c["masked"] for c in out), "masked")


main()
