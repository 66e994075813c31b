#!/usr/bin/env python3
"""Draws pictures with words from Noto Color Emoji and Unicode CLDR, both Debian packages.

Writes a training set and a held-out set in InternVL's format (meta JSON, JSONL, JPEG), and trains
the SentencePiece tokenizer on the training set's own words. Everything comes from the seed.

  apt install fonts-noto-color-emoji unicode-cldr-core
  pip install pillow sentencepiece
  ./draw.py --out /tmp/emoji --pictures 30000
"""
import argparse
import json
import math
import os
import random
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ProcessPoolExecutor

from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
CLDR = "/usr/share/unicode/cldr/common/annotations"
OBJECTS = (
    "🐕🐈🐎🐄🐖🐑🐐🐘🦒🐢🐍🦎🐸🐟🐬🦀🐙🦋🐌🐝🐞🦉🦆🐓🐧🍎🍌🍇🍓🍉🍋🍒🍍🥕🌽🍄🍞🧀🥚🍕🍔🍪🎂🍩☕"
    "🚗🚌🚲🚂✈🚀⛵🚁🏠⛺🌵🌻🌹🌲⭐🌙☂🔑🔨✂📖✏💡🕯🎈🎁⚽🏀🎸🎺🥁👑👟🎩👓⌚📷☎💻"
)
COLOURS = [
    ("red", "红色", (205, 60, 55)), ("green", "绿色", (70, 160, 75)),
    ("blue", "蓝色", (65, 100, 205)), ("yellow", "黄色", (235, 210, 70)),
    ("white", "白色", (245, 245, 245)), ("black", "黑色", (25, 25, 25)),
    ("pink", "粉色", (240, 165, 195)), ("grey", "灰色", (130, 130, 130)),
]
COUNTS = [("one", "一个"), ("two", "两个"), ("three", "三个"), ("four", "四个")]
QUESTIONS = {
    "name": (["What is this?", "What do you see?", "Name the object."],
             ["这是什么？", "图中是什么？"]),
    "colour": (["What colour is the background?", "Which colour is behind it?"],
               ["背景是什么颜色？"]),
    "count": (["How many are there?", "How many do you see?"], ["有几个？"]),
}
SIDE = 84


def names(language):
    tree = ElementTree.parse(f"{CLDR}/{language}.xml")
    return {a.get("cp"): a.text for a in tree.iter("annotation") if a.get("type") == "tts"}


def sprite(character):
    """One emoji of the bitmap font, cut to what is drawn."""
    font = ImageFont.truetype(FONT, 109)
    image = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(image).text((10, 10), character, font=font, embedded_color=True)
    return image.crop(image.getbbox())


SPRITES = {}


def picture(rng, character, colour, count):
    """`count` copies in new sizes, turns and places on a ground that is not quite even."""
    if character not in SPRITES:
        SPRITES[character] = sprite(character)
    tone = tuple(min(255, max(0, c + rng.randint(-14, 14))) for c in colour)
    image = Image.new("RGB", (SIDE, SIDE), tone)
    ground = image.load()
    for y in range(SIDE):
        shade = int(8 * math.sin(y / 9 + rng.random()))
        for x in range(SIDE):
            ground[x, y] = tuple(min(255, max(0, c + shade)) for c in tone)
    cells = [(0, 0)] if count == 1 else rng.sample([(0, 0), (1, 0), (0, 1), (1, 1)], count)
    room = SIDE if count == 1 else SIDE // 2
    for column, row in cells:
        size = int(room * rng.uniform(0.62, 0.92))
        drawn = SPRITES[character]
        scale = size / max(drawn.size)
        drawn = drawn.resize([max(1, int(s * scale)) for s in drawn.size], Image.LANCZOS)
        drawn = drawn.rotate(rng.uniform(-20, 20), Image.BICUBIC, expand=True)
        x = column * room + rng.randint(0, max(0, room - drawn.size[0]))
        y = row * room + rng.randint(0, max(0, room - drawn.size[1]))
        image.paste(drawn, (x, y), drawn)
    return image


def held_out(character, colour):
    """One in eight pairs of thing and colour is never trained on."""
    return (OBJECTS.index(character) + 3 * colour) % 8 == 0


def sample(job):
    folder, number, seed, unseen = job
    rng = random.Random(f"{seed}/{number}")
    while True:
        character, colour = rng.choice(OBJECTS), rng.randrange(len(COLOURS))
        if held_out(character, colour) == unseen:
            break
    count = rng.choice([1, 1, 1, 2, 3, 4])
    path = f"images/{number // 1000:03}/{number:06}.jpg"
    os.makedirs(os.path.dirname(f"{folder}/{path}"), exist_ok=True)
    picture(rng, character, COLOURS[colour][2], count).save(f"{folder}/{path}", quality=92)
    answers = {
        "name": (ENGLISH[character], CHINESE[character]), "colour": COLOURS[colour][:2],
        "count": COUNTS[count - 1],
    }
    tasks = list(QUESTIONS)
    rng.shuffle(tasks)
    turns = []
    for task in tasks:
        language = int(rng.random() < 0.3)
        turns.append((task, language, rng.choice(QUESTIONS[task][language]),
                      answers[task][language]))
    return path, turns


def conversation(number, path, turns):
    said = []
    for index, (_, _, question, answer) in enumerate(turns):
        said.append({"from": "human", "value": ("<image>\n" if index == 0 else "") + question})
        said.append({"from": "gpt", "value": answer})
    return {"id": number, "image": path, "width": SIDE, "height": SIDE, "conversations": said}


def tokenizer(folder, lines):
    import sentencepiece

    os.makedirs(f"{folder}/tokenizer", exist_ok=True)
    with open(f"{folder}/tokenizer.txt", "w", encoding="utf-8") as file:
        file.write("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=f"{folder}/tokenizer.txt", model_prefix=f"{folder}/tokenizer/tokenizer",
        model_type="bpe", vocab_size=1000, byte_fallback=True, character_coverage=1.0,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, bos_piece="<|startoftext|>",
        eos_piece="<|endoftext|>", hard_vocab_limit=False, minloglevel=2,
        user_defined_symbols=["<pad>", "<sep>", "<unused>", "<|im_start|>", "<|im_end|>"])
    os.remove(f"{folder}/tokenizer/tokenizer.vocab")
    os.remove(f"{folder}/tokenizer.txt")
    pieces = sentencepiece.SentencePieceProcessor(
        model_file=f"{folder}/tokenizer/tokenizer.model")
    size = pieces.get_piece_size()
    # Ids 6 and 7 are the ends of a ChatML turn, as in the release's vocabulary.
    assert pieces.id_to_piece(6) == "<|im_start|>" and pieces.id_to_piece(7) == "<|im_end|>"
    added = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>",
             "</box>"]
    ids = {text: size + index for index, text in enumerate(added)}
    special = {0: "<unk>", 1: "<|startoftext|>", 2: "<|endoftext|>", 6: "<|im_start|>",
               7: "<|im_end|>", **{number: text for text, number in ids.items()}}
    write(f"{folder}/tokenizer/added_tokens.json", ids)
    write(f"{folder}/tokenizer/special_tokens_map.json",
          {"additional_special_tokens": added, "bos_token": "<|startoftext|>",
           "eos_token": "<|im_end|>", "pad_token": "<unk>", "unk_token": "<unk>"})
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
             "special": True}
    write(f"{folder}/tokenizer/tokenizer_config.json",
          {"add_bos_token": False, "add_eos_token": False,
           "added_tokens_decoder": {str(i): {"content": t, **flags} for i, t in special.items()},
           "additional_special_tokens": added, "bos_token": "<|startoftext|>",
           "eos_token": "<|im_end|>", "pad_token": "<unk>", "unk_token": "<unk>",
           "legacy": True, "model_max_length": 1024, "sp_model_kwargs": {},
           "tokenizer_class": "LlamaTokenizer"})
    return size + len(added)


def write(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--pictures", type=int, default=30000)
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with ProcessPoolExecutor(options.workers) as pool:
        words = []
        for name, count, unseen in [
            ("train", options.pictures, False), ("seen", options.held_out, False),
            ("unseen", options.held_out, True),
        ]:
            folder = f"{options.out}/{name}"
            os.makedirs(folder, exist_ok=True)
            jobs = [(folder, n, f"{options.seed}/{name}", unseen) for n in range(count)]
            samples = list(pool.map(sample, jobs, chunksize=100))
            with open(f"{options.out}/{name}.jsonl", "w", encoding="utf-8") as lines:
                for number, (path, turns) in enumerate(samples):
                    line = json.dumps(conversation(number, path, turns), ensure_ascii=False)
                    lines.write(line + "\n")
            if name == "train":
                words = [text for _, turns in samples[:5000] for t in turns for text in t[2:]]
                words += [names[thing] for thing in OBJECTS for names in (ENGLISH, CHINESE)]
            else:
                with open(f"{options.out}/{name}-questions.jsonl", "w", encoding="utf-8") as lines:
                    for path, turns in samples:
                        for task, language, question, answer in turns:
                            lines.write(json.dumps(
                                {"image": f"{name}/{path}", "task": task,
                                 "language": ["en", "zh"][language], "question": question,
                                 "answer": answer}, ensure_ascii=False) + "\n")
    write(f"{options.out}/meta.json", {
        "emoji": {"root": "train", "annotation": "train.jsonl", "data_augment": False,
                  "repeat_time": 1, "length": options.pictures}})
    vocabulary = tokenizer(options.out, words)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "config.json")) as file:
        config = json.load(file)
    config["llm_config"]["vocab_size"] = vocabulary
    write(f"{options.out}/config.json", config)
    print(f"{options.pictures} pictures of {len(OBJECTS)} things, vocabulary {vocabulary}")


ENGLISH, CHINESE = names("en"), names("zh")

if __name__ == "__main__":
    main()
