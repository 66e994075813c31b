#!/usr/bin/env python3
"""Asks a trained model about held-out pictures through a mesh, and counts exact answers.

  ./score.py --model /tmp/emoji-run/checkpoint-1000 --data /tmp/emoji --bin .build/release

"blind" asks the same questions about another picture: what knowing the questions alone gives.
"""
import argparse
import collections
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mesh import ask, mesh  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--bin", default=".build/release")
    parser.add_argument("--mistakes", type=int, default=10)
    options = parser.parse_args()
    with mesh(options.model, options.bin) as gateway:
        for name in ["seen", "unseen"]:
            with open(f"{options.data}/{name}-questions.jsonl", encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
            asked = [(f"{options.data}/{r['image']}", r["question"]) for r in rows]
            # The picture of a question half the set away.
            swapped = [(asked[(i + len(rows) // 2) % len(rows)][0], q)
                       for i, (_, q) in enumerate(asked)]
            answers, blind = ask(gateway, asked, 16), ask(gateway, swapped, 16)
            report(name, rows, answers, blind, options.mistakes)


def report(name, rows, answers, blind, mistakes):
    table = collections.defaultdict(lambda: [0, 0, 0])
    wrong = []
    for row, answer, swapped in zip(rows, answers, blind):
        cell = table[row["task"], row["language"]]
        cell[0] += 1
        cell[1] += answer.strip() == row["answer"]
        cell[2] += swapped.strip() == row["answer"]
        if answer.strip() != row["answer"]:
            wrong.append((row, answer))
    kind = "that were trained on" if name == "seen" else "never seen"
    print(f"\npairs of thing and colour {kind}, in new pictures")
    print(f"{'task':8} {'':2} {'asked':>6} {'right %':>8} {'blind %':>8}")
    for (task, language), (count, right, guessed) in sorted(table.items()):
        print(f"{task:8} {language} {count:6} {100 * right / count:8.1f} "
              f"{100 * guessed / count:8.1f}")
    for row, answer in wrong[:: max(1, len(wrong) // max(1, mistakes))][:mistakes]:
        print(f"  {row['image']}: {row['question']} {answer!r}, expected {row['answer']!r}")


if __name__ == "__main__":
    main()
