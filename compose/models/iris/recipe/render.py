#!/usr/bin/env python3
"""Renders the training set: pictures, conversations and what each patch shows.

  ./render.py --sources SOURCES --sprites SPRITES --out DATA --first 60000 --vision 120000

Writes DATA/images/FAMILY/…, DATA/FAMILY.jsonl, DATA/classes.json, and the phases' meta files:
meta-first.json, easy pictures for the vision encoder alone; meta-vision.json, harder ones for it;
and over these meta-all.json for the phase that trains everything. A picture depends on the seed,
its family and its number alone.
"""
import argparse
import json
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

from assets import Assets
from canvas import SIDE
from families import (charts, easyvqa, geometry, naming, photos, reading, scenes, shapes, tables,
                      talk, unsure, words)
from turns import pick
from world import CLASSES

FAMILIES = {
    "naming": naming, "scenes": scenes, "shapes": shapes, "easyvqa": easyvqa, "reading": reading,
    "charts": charts, "tables": tables, "geometry": geometry, "photos": photos, "unsure": unsure,
    "talk": talk, "digits": SimpleNamespace(draw=reading.digits), "words": words,
}
#: Shares of the phases. From easy pictures the encoder learns to see three times as fast. Before
#: the last phase there is more of what is hard to see: shapes and signs.
FIRST = {"easy-naming": 0.35, "easy-scenes": 0.15, "easy-shapes": 0.25, "easy-reading": 0.25}
VISION = {
    "naming": 0.24, "scenes": 0.18, "shapes": 0.27, "easyvqa": 0.02, "reading": 0.20,
    "charts": 0.03, "tables": 0.01, "geometry": 0.02, "photos": 0.03,
}
ALL = {
    "naming": 0.24, "scenes": 0.20, "reading": 0.13, "shapes": 0.15, "easyvqa": 0.05,
    "charts": 0.06, "tables": 0.02, "geometry": 0.03, "photos": 0.06, "unsure": 0.04, "talk": 0.02,
}
MORE = {
    "more-naming": 0.22, "more-scenes": 0.25, "more-digits": 0.09, "more-reading": 0.03,
    "more-shapes": 0.18, "more-easyvqa": 0.02, "more-charts": 0.03, "more-tables": 0.01,
    "more-geometry": 0.02, "more-photos": 0.04, "more-unsure": 0.01, "more-talk": 0.01,
    "more-words": 0.09,
}
PHASES = {"first": FIRST, "vision": VISION, "all": ALL, "more": MORE}
#: How much oftener the last phase asks for something; what the model always knows, seldom.
EMPHASIS = {"ground": 0.25, "ink": 0.25, "length": 0.5, "category": 0.4, "spell": 0.3, "is it": 1.6,
            "presence": 1.3, "relation": 1.3, "which side": 1.3, "count": 1.3, "shape": 1.3}
CHUNK = 250
GENTLE = {"reading", "charts", "tables", "photos", "easyvqa"}


def sample(family, number, seed, assets):
    """The JPEG, or None, and the sample without its path."""
    rng = random.Random(f"{seed}/{family}/{number}")
    stage, _, kind = family.rpartition("-")
    easy = stage == "easy"
    canvas, asks = FAMILIES[kind].draw(rng, assets[easy])
    if stage == "more":
        for ask in asks:
            ask.weight *= EMPHASIS.get(ask.task, 1)
    turns = pick(rng, asks, rng.choice([3, 4]))
    line = {"id": f"{family}/{number}"}
    said = []
    for index, turn in enumerate(turns):
        mark = "<image>\n" if canvas and index == 0 else ""
        said += [{"from": "human", "value": mark + turn.question},
                 {"from": "gpt", "value": turn.answer}]
    if canvas:
        line.update(width=SIDE, height=SIDE)
    line["conversations"] = said
    if canvas:
        line.update(canvas.labels(CLASSES.colours))
    picture = canvas.encoded(kind in GENTLE, 0.0 if easy else 0.5) if canvas else None
    return picture, line, turns


def path_of(family, number):
    return f"{family}/{number // 1000:03}/{number:06}.jpg"


_assets = None


def _start(sources, sprites):
    global _assets
    _assets = [Assets(sources, sprites, easy=easy) for easy in (False, True)]


def _chunk(job):
    """Writes some pictures; returns their lines."""
    out, family, numbers, seed = job
    lines = []
    for number in numbers:
        picture, line, _ = sample(family, number, seed, _assets)
        if picture:
            path = path_of(family, number)
            file = out / "images" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture)
            line = {"id": line.pop("id"), "image": path, **line}
        lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
    return lines


def render(options, counts):
    with ProcessPoolExecutor(options.workers, initializer=_start,
                             initargs=(options.sources, options.sprites)) as pool:
        for family, count in counts.items():
            began = time.monotonic()
            jobs = [(options.out, family, range(n, min(n + CHUNK, count)), options.seed)
                    for n in range(0, count, CHUNK)]
            with open(options.out / f"{family}.jsonl", "w", encoding="utf-8") as file:
                for lines in pool.map(_chunk, jobs):
                    file.writelines(line + "\n" for line in lines)
            spent = time.monotonic() - began
            print(f"{family}: {count} in {spent:.1f} s, {1e3 * spent / max(count, 1):.2f} ms each",
                  flush=True)


def meta(counts, shares, total):
    """Of each family the share that a phase takes, as a leading fraction of its lines."""
    sets = {}
    for family, share in shares.items():
        wanted = min(counts[family], round(total * share))
        if wanted == 0:
            continue
        sets[family] = {
            "root": "images", "annotation": f"{family}.jsonl", "data_augment": False,
            # A hair above, so that the fraction of the lines rounds down to what is wanted.
            "repeat_time": 1 if wanted == counts[family] else (wanted + 0.5) / counts[family],
            "length": counts[family],
        }
    return sets


def write(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", required=True, type=Path)
    parser.add_argument("--sprites", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    for phase in PHASES:
        parser.add_argument(f"--{phase}", type=int, default=100_000, help="samples of this phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    totals = {phase: getattr(options, phase) for phase in PHASES}
    counts = {}
    for phase, shares in PHASES.items():
        for family, share in shares.items():
            counts[family] = max(counts.get(family, 0), round(totals[phase] * share))
    render(options, counts)
    write(options.out / "classes.json", CLASSES.table)
    for phase, shares in PHASES.items():
        write(options.out / f"meta-{phase}.json", meta(counts, shares, totals[phase]))
    print(f"{sum(counts.values())} samples in {options.out}")


if __name__ == "__main__":
    main()
