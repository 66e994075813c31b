#!/usr/bin/env python3
"""Writes what the tests expect of the model: greedy answers to 20 questions, token by token.

  ./pin.py --work WORK --bin .build/release --out Tests/Fixtures/iris

OUT/answers.json has of each question its picture, its words, the right answer, what the model
says, and the tokens of that, the end token too, with weights of 16, 8 and 4 bits.
"""
import argparse
import json
import shutil
import sys
from pathlib import Path

from make import TYPES

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from mesh import mesh, replies  # noqa: E402

MOST = 24


def answers(model, options, asked):
    with mesh(model, options.bin) as gateway:
        return replies(gateway, asked, MOST)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--bin", default=".build/release")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    data = options.work / "evaluation"
    rows = [json.loads(line) for line in
            (data / "fixed.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [(str(data / row["image"]), row["question"]) for row in rows]
    models = {"bf16": options.work / "iris",
              **{kind: options.work / f"iris-{kind}" for kind in TYPES}}
    given = {kind: answers(model, options, asked) for kind, model in models.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    pinned = []
    for index, row in enumerate(rows):
        picture = Path(row["image"]).name
        shutil.copy(data / row["image"], options.out / picture)
        pinned.append({"picture": picture, "question": row["question"], "right": row["answer"],
                       "answer": given["bf16"][index]["text"],
                       "tokens": {kind: replies[index]["token_ids"]
                                  for kind, replies in given.items()}})
    (options.out / "answers.json").write_text(
        json.dumps(pinned, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for kind in TYPES:
        same = sum(p["tokens"][kind] == p["tokens"]["bf16"] for p in pinned)
        print(f"{kind}: {same} of {len(pinned)} answers as with 16 bits")


if __name__ == "__main__":
    main()
