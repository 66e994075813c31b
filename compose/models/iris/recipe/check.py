#!/usr/bin/env python3
"""Looks through what was rendered for what must never be in it, and for lopsided answers.

  ./check.py --data DATA --evaluation EVALUATION
"""
import argparse
import collections
import json
import re
from pathlib import Path

from canvas import GRID
from judge import is_right, terms_in, yes_or_no
from world import CLASSES, HELD_OUT

#: Names kept back that are also words of other names or of everyday speech in the questions.
ALLOWED = {"drum"}


def samples(data):
    for path in sorted(data.glob("*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for line in file:
                yield path.stem, json.loads(line)


def check_labels(sample):
    sizes = {"what": len(CLASSES.rows), "colour": len(CLASSES.colours)}
    for group, size in sizes.items():
        patches, cells = sample["patches"][group], sample["cells"][group]
        assert len(patches) == GRID * GRID and len(cells) == GRID * GRID // 4, sample["id"]
        assert all(-1 <= c < size for c in patches), sample["id"]
        assert all(0 <= c < size for cell in cells for c in cell), sample["id"]
        assert all(len(set(cell)) == len(cell) <= 16 for cell in cells), sample["id"]


def check_training(data):
    kept_back = {t.english for t in HELD_OUT} - ALLOWED
    kept_back_chinese = {t.chinese for t in HELD_OUT}
    turns = chinese = count = 0
    yes = collections.Counter()
    for family, sample in samples(data):
        count += 1
        if "image" in sample:
            check_labels(sample)
        said = [t["value"] for t in sample["conversations"]]
        assert said[0].startswith("<image>\n") == ("image" in sample), sample["id"]
        for question, answer in zip(said[::2], said[1::2]):
            turns += 1
            language = "zh" if re.search("[\u4e00-\u9fff]", question) else "en"
            chinese += language == "zh"
            if not family.endswith("reading"):
                leak = terms_in(f"{question} {answer}", kept_back, "en")
                leak |= {t for t in kept_back_chinese if len(t) > 1 and t in question + answer}
                assert not leak, (sample["id"], question, answer, leak)
            if re.match("(Is|Are|Does|Do) ", question.replace("<image>\n", "")):
                said_so = yes_or_no(answer, "en")
                if said_so:
                    yes[family, said_so] += 1
    print(f"{count} samples, {turns / count:.2f} turns each, {100 * chinese / turns:.1f} % Chinese")
    for family in sorted({family for family, _ in yes}):
        both = yes[family, "yes"] + yes[family, "no"]
        if both:
            print(f"  {family}: {100 * yes[family, 'yes'] / both:.0f} % of {both} are yes")


def check_evaluation(folder):
    terms = json.loads((folder / "terms.json").read_text(encoding="utf-8"))
    for path in sorted(folder.glob("*.jsonl")):
        rows = [json.loads(line) for line in path.open(encoding="utf-8")]
        for row in rows:
            assert is_right(row, row["answer"], terms), row
            assert (folder / row["image"]).exists(), row
        print(f"  {path.stem}: {len(rows)} questions, each right answer is judged right")


def check_judge():
    def row(kind, gold, language="en"):
        return {"kind": kind, "gold": gold, "language": language, "answer": gold}
    terms = {"name": {"en": ["dog", "hot dog", "cat"], "zh": ["狗", "热狗"]}}
    for kind, gold, language, answer, right in [
        ("name", "dog", "en", "This is a dog.", True), ("name", "dog", "en", "A hot dog.", False),
        ("name", "dog", "en", "A dog and a cat.", False), ("name", "狗", "zh", "这是热狗。", False),
        ("yes", "no", "en", "It is a cat, so no.", True), ("yes", "yes", "en", "No", False),
        ("yes", "是", "zh", "这是猫，所以不是。", False), ("yes", "是", "zh", "这是猫，所以是。", True),
        ("number", "3", "en", "There are three dogs.", True), ("number", "2", "zh", "两只。", True),
        ("number", "16", "en", "2 x 8 = 16", True), ("letter", "B", "en", "Dog: B", True),
        ("letter", "B", "en", "A dog", False), ("text", "037", "en", "It is 37", False),
    ]:
        assert is_right(row(kind, gold, language), answer, terms) == right, (kind, gold, answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--evaluation", required=True, type=Path)
    options = parser.parse_args()
    check_judge()
    check_training(options.data)
    check_evaluation(options.evaluation)


if __name__ == "__main__":
    main()
