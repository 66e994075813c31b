#!/usr/bin/env python3
"""Trains the tokenizer on the training set's own words, and writes the model's config.json.

  ./tokenizer.py --data DATA --out MODEL [--vocabulary 4096]

SentencePiece BPE with byte fallback and single digits; the special tokens stand where the release's
vocabulary has them: 0 <unk>, 1 <|startoftext|>, 2 <|endoftext|>, 6 <|im_start|>, 7 <|im_end|>, and
nine added behind the pieces, <img> first.
"""
import argparse
import json
import re
from pathlib import Path

import sentencepiece

from render import FAMILIES
from world import CATEGORIES, COLOURS, GARMENTS, HANZI, HERE, SHAPES, TRAINED

ADDED = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>",
         "</box>"]
SYMBOLS = ["<|Human|>", "<|Assistant|>", "<|System|>", "<|im_start|>", "<|im_end|>"]
#: Samples of each family whose words are taken.
SAMPLES = 2500


def parts(line, names):
    """Chinese has no spaces: without these cuts "这是狗" would be one piece, and 狗 another."""
    return [part for part in re.split(f"({names})", line) if part]


def corpus(data):
    """Questions and answers, each a line; and every name as it begins an answer and within one."""
    names = [t.chinese for t in TRAINED] + [chinese for chinese, _ in COLOURS.values()]
    names += [*SHAPES.values(), *CATEGORIES.values(), *(chinese for _, chinese in GARMENTS)]
    names += ["饼图", "折线图", "条形图"]
    # Measure words and numbers stand beside the name in many ways, too.
    names = "|".join(sorted(map(re.escape, {*names, *"只个棵座辆件把台杯零一二两三四五六七八九"}),
                            key=len, reverse=True))
    for family in FAMILIES:
        with open(data / f"{family}.jsonl", encoding="utf-8") as file:
            for _, line in zip(range(SAMPLES), file):
                for turn in json.loads(line)["conversations"]:
                    for text in turn["value"].replace("<image>\n", "").split("\n"):
                        yield from parts(text, names)
    names = [(t.english, t.chinese) for t in TRAINED]
    names += [(name, chinese) for name, (chinese, _) in COLOURS.items()] + list(SHAPES.items())
    for english, chinese in names * 60:
        yield english
        yield f"a {english}"
        yield f"{english[:1].upper()}{english[1:]}"
        yield chinese
    yield from ["system", "user", "assistant", "Answer the questions."] * 200
    yield from list(HANZI) * 20
    yield from "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def train(lines, size, path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=open(path, "wb"), model_type="bpe",
        vocab_size=size - len(ADDED), hard_vocab_limit=False, byte_fallback=True,
        split_digits=True, allow_whitespace_only_pieces=True, character_coverage=1.0,
        normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, user_defined_symbols=SYMBOLS,
        unk_id=0, bos_id=1, eos_id=2, pad_id=-1, unk_piece="<unk>",
        bos_piece="<|startoftext|>", eos_piece="<|endoftext|>", num_threads=1, minloglevel=2)


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_settings(out, size):
    """The files beside tokenizer.model, as the release has them."""
    ids = {text: size + index for index, text in enumerate(ADDED)}
    special = {0: "<unk>", 1: "<|startoftext|>", 2: "<|endoftext|>", 6: "<|im_start|>",
               7: "<|im_end|>", **{number: text for text, number in ids.items()}}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
             "special": True}
    tokens = {"bos_token": "<|startoftext|>", "eos_token": "<|im_end|>", "pad_token": "<unk>",
              "unk_token": "<unk>", "additional_special_tokens": ADDED}
    write(out / "added_tokens.json", ids)
    write(out / "special_tokens_map.json", tokens)
    write(out / "tokenizer_config.json", {
        "add_bos_token": False, "add_eos_token": False,
        "added_tokens_decoder": {str(i): {"content": t, **flags}
                                 for i, t in sorted(special.items())},
        **tokens, "legacy": True, "model_max_length": 1024, "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer"})
    return size + len(ADDED)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--vocabulary", type=int, default=4096)
    options = parser.parse_args()
    tokenizer = options.out / "tokenizer"
    tokenizer.mkdir(parents=True, exist_ok=True)
    model = tokenizer / "tokenizer.model"
    train(corpus(options.data), options.vocabulary, model)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
    for number, text in [(6, "<|im_start|>"), (7, "<|im_end|>"), (8, "<0x00>")]:
        if pieces.id_to_piece(number) != text:
            raise SystemExit(f"piece {number} is {pieces.id_to_piece(number)}, and not {text}")
    size = write_settings(tokenizer, pieces.get_piece_size())
    config = json.loads((HERE / "config.json").read_text())
    config["llm_config"]["vocab_size"] = size
    write(options.out / "config.json", config)
    whole = [t.english for t in TRAINED if len(pieces.encode(t.english)) == 1]
    chinese = [t.chinese for t in TRAINED if len(pieces.encode(t.chinese)) == 1]
    print(f"vocabulary {size}; of {len(TRAINED)} names {len(whole)} English and {len(chinese)} "
          "Chinese are one piece")


if __name__ == "__main__":
    main()
