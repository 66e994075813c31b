#!/usr/bin/env python3
"""Asks a model the held-out questions through a mesh, and writes a table of scores.

  ./score.py --model MODEL --data EVALUATION --bin .build/release --out SCORES

Writes SCORES/scores.md, scores.json, answers.jsonl, and mistakes.png: ten random mistakes with
their pictures. "blind" asks the same question about the picture of another question of the same
task; "always" is what the most frequent right answer would score: the chance to beat.
"""
import argparse
import collections
import json
import random
import sys
import time
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from judge import is_right

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from mesh import ask, mesh  # noqa: E402

SETS = ["seen", "style", "stamps", "names", "words", "font", "matplotlib", "easy-vqa", "fashion"]
#: Rows of the first table: title, set, tasks or a kind.
HEADLINES = [
    ("names of seen drawings", "seen", ["naming/name"]),
    ("which side", "seen", ["scenes/which side", "scenes/relation"]),
    ("colors", "seen", ["shapes/colour"]),
    ("shapes", "seen", ["shapes/shape"]),
    ("counting to six", "seen", ["scenes/count", "shapes/count"]),
    ("digits", "seen", ["reading/digits"]),
    ("yes or no", "seen", "yes"),
    ("one of four", "seen", "letter"),
    ("words", "seen", ["reading/word"]),
    ("hanzi", "seen", ["reading/hanzi"]),
    ("charts", "seen", "charts/"),
    ("receipts and tables", "seen", "tables/"),
    ("angles and lengths", "seen", "geometry/"),
    ("not sure, of what it cannot know", "seen", ["unsure/unsure"]),
    ("names in an unseen drawing style", "style", ["naming/name"]),
    ("names of stamps, half photographs", "stamps", ["naming/name"]),
    ("not sure, of names kept back", "names", ["names/unsure"]),
    ("words kept back", "words", ["reading/word"]),
    ("digits in an unseen font", "font", ["reading/digits"]),
    ("charts in an unseen style", "matplotlib", "charts/"),
    ("easy-VQA, official test", "easy-vqa", "easy-vqa/"),
    ("Fashion-MNIST, official test", "fashion", "fashion/"),
]


def swapped(rows):
    """For each row the picture of another of its task, half of these away."""
    by_task = collections.defaultdict(list)
    for index, row in enumerate(rows):
        by_task[row["task"]].append(index)
    pictures = [None] * len(rows)
    for indices in by_task.values():
        half = max(1, len(indices) // 2)
        for position, index in enumerate(indices):
            pictures[index] = rows[indices[(position + half) % len(indices)]]["image"]
    return pictures


def chosen(row, which):
    if isinstance(which, list):
        return row["task"] in which
    return row["task"].startswith(which) if which.endswith("/") else row["kind"] == which


def summary(rows):
    """n, right, blind, and what the most frequent gold would get, in per cent."""
    count = len(rows)
    golds = collections.Counter((r["language"], r["gold"]) for r in rows)
    languages = collections.Counter(r["language"] for r in rows)
    always = sum(max(n for (l, _), n in golds.items() if l == language) for language in languages)
    asked_blind = [r for r in rows if "blind" in r]
    return {"n": count, "always": 100 * always / count,
            "right": 100 * sum(r["right"] for r in rows) / count,
            "blind": 100 * sum(r["blind_right"] for r in asked_blind) / max(1, len(asked_blind)),
            "exact": 100 * sum(r["given"].strip() == r["answer"] for r in rows) / count}


def table(entries):
    lines = ["| | n | right % | always % | blind % | word for word % |",
             "|---|---:|---:|---:|---:|---:|"]
    for title, s in entries:
        lines.append(f"| {title} | {s['n']} | {s['right']:.1f} | {s['always']:.1f} | "
                     f"{s['blind']:.1f} | {s['exact']:.1f} |")
    return "\n".join(lines)


def mistakes(rows, data, out, font, seed=1, count=10):
    """Ten random mistakes, and what was asked, said and right."""
    wrong = [r for r in rows if not r["right"]]
    some = random.Random(seed).sample(wrong, min(count, len(wrong)))
    sheet = Image.new("RGB", (5 * 260, 2 * 340), "white")
    drawing = ImageDraw.Draw(sheet)
    for index, row in enumerate(some):
        x, y = index % 5 * 260, index // 5 * 340
        picture = Image.open(data / row["image"]).resize((224, 224), Image.BICUBIC)
        sheet.paste(picture, (x + 4, y + 4))
        below = y + 232
        for words, fill in [(row["question"], "black"), (row["given"] or "(nothing)", "#b00000"),
                            (row["answer"], "#006000")]:
            line = ""
            for sign in words.replace("\n", " / ") + "\n":
                if sign == "\n" or font.getlength(line + sign) > 250:
                    drawing.text((x + 4, below), line, font=font, fill=fill)
                    below, line = below + 14, ""
                line += sign
    sheet.save(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--sources", required=True, type=Path, help="for the font of the sheet")
    parser.add_argument("--bin", default=".build/release")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--limit", type=int, default=0, help="questions of a set at most; 0: all")
    parser.add_argument("--blind", type=int, default=2000, help="blind questions of a set at most")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    terms = json.loads((options.data / "terms.json").read_text(encoding="utf-8"))
    everything = {}
    with mesh(options.model, options.bin) as gateway:
        for name in options.sets:
            with open(options.data / f"{name}.jsonl", encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
            random.Random(name).shuffle(rows)
            rows = rows[:options.limit or None]
            began = time.monotonic()
            given = ask(gateway, [(str(options.data / r["image"]), r["question"])
                                  for r in rows], 40)
            for row, answer in zip(rows, given):
                row.update(set=name, given=answer, right=is_right(row, answer, terms))
            some = list(zip(rows, swapped(rows)))[:options.blind]
            blind = ask(gateway, [(str(options.data / p), r["question"]) for r, p in some], 40)
            for (row, _), answer in zip(some, blind):
                row.update(blind=answer, blind_right=is_right(row, answer, terms))
            everything[name] = rows
            spent = time.monotonic() - began
            print(f"{name}: {len(rows)} questions, {(len(rows) + len(some)) / spent:.0f}/s",
                  flush=True)
    write(options, everything)


def write(options, everything):
    entries = []
    for title, name, which in HEADLINES:
        rows = [r for r in everything.get(name, []) if chosen(r, which)]
        if rows:
            entries.append((title, summary(rows)))
    tasks = []
    for name, rows in everything.items():
        for task in sorted({(r["task"], r["language"]) for r in rows}):
            tasks.append((f"{name}: {task[0]}, {task[1]}",
                          summary([r for r in rows if (r["task"], r["language"]) == task])))
    text = f"{table(entries)}\n\nEach task:\n\n{table(tasks)}\n"
    (options.out / "scores.md").write_text(text, encoding="utf-8")
    (options.out / "scores.json").write_text(
        json.dumps({"headlines": dict(entries), "tasks": dict(tasks)}, ensure_ascii=False,
                   indent=1) + "\n", encoding="utf-8")
    rows = [r for some in everything.values() for r in some]
    with open(options.out / "answers.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    font = ImageFont.truetype(str(
        options.sources / "debian/fonts-wqy-microhei/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
    ), 12)
    mistakes([r for r in rows if r["set"] == "seen"] or rows, options.data,
             options.out / "mistakes.png", font)
    print(table(entries))


if __name__ == "__main__":
    main()
