#!/usr/bin/env python3
"""Makes the model again, from nothing: fetches, renders, trains in two phases, asks, and packs.

  python3 -m venv VENV && VENV/bin/pip install -r requirements.txt
  VENV/bin/python make.py --work WORK --bin .build/release [--until render]

Each step is done once: WORK/done/STEP says so, and training goes on where it was stopped.
"""
import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
STEPS = ["fetch", "sprites", "render", "tokenizer", "evaluation", "start", "vision", "all", "score"]


class Recipe:
    def __init__(self, options):
        self.options, self.work = options, options.work.resolve()
        self.sources, self.sprites_ = self.work / "sources", self.work / "sprites"
        self.data, self.tests = self.work / "data", self.work / "evaluation"

    def python(self, script, *arguments):
        subprocess.run([sys.executable, HERE / script, *map(str, arguments)], check=True)

    def chiasm(self, *arguments):
        subprocess.run([self.options.bin / "chiasm", *map(str, arguments)], check=True)

    def fetch(self):
        self.python("fetch.py", "--out", self.sources)

    def sprites(self):
        self.python("sprites.py", "--sources", self.sources, "--out", self.sprites_)

    def render(self):
        self.python("render.py", "--sources", self.sources, "--sprites", self.sprites_, "--out",
                    self.data, "--vision", self.options.vision, "--all", self.options.all)

    def tokenizer(self):
        self.python("tokenizer.py", "--data", self.data, "--out", self.work / "shape")

    def evaluation(self):
        self.python("evaluation.py", "--sources", self.sources, "--sprites", self.sprites_,
                    "--out", self.tests)

    def start(self):
        self.chiasm("random-model", self.work / "start", "--config",
                    self.work / "shape/config.json", "--tokenizer", self.work / "shape/tokenizer",
                    "--type", "float32", "--for-training")

    def vision(self):
        self.train("vision", self.work / "start", self.options.vision, 8,
                   ["--vision-stages", 1, "--language-stages", 1], threads=2)

    def all(self):
        # The head and the embedding table are one tensor: one language stage.
        self.train("all", self.newest("vision"), self.options.all, 8,
                   ["--vision-stages", 1, "--language-stages", 1])

    def train(self, phase, model, samples, batch, stages, threads=1):
        steps = samples // batch
        self.chiasm("train", "--config", HERE / f"train-{phase}.yaml", "--model", model,
                    "--meta", self.data / f"meta-{phase}.json", "--output", self.work / phase,
                    "--max-steps", steps, "--threads", threads, "--balance", "auto", "--resume",
                    *stages)
        # A run that was asked to end early saved its state and succeeded.
        if self.newest(phase).name != f"checkpoint-{steps}":
            raise SystemExit(f"{phase}: ended before step {steps}; the same command goes on")

    def newest(self, phase):
        found = [p for p in (self.work / phase).glob("checkpoint-*")
                 if p.name.split("-")[1].isdigit()]
        return max(found, key=lambda p: int(p.name.split("-")[1]))

    def score(self):
        self.python("score.py", "--model", self.newest("all"), "--data", self.tests, "--out",
                    self.work / "scores", "--sources", self.sources, "--bin", self.options.bin)
        shutil.copy(self.sources / "NOTICE", self.work / "NOTICE")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--bin", default=Path(".build/release"), type=Path)
    parser.add_argument("--vision", type=int, default=240_000, help="samples of the first phase")
    parser.add_argument("--all", type=int, default=120_000, help="samples of the second phase")
    parser.add_argument("--until", choices=STEPS, default=STEPS[-1])
    options = parser.parse_args()
    done = options.work / "done"
    done.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(options)
    for step in STEPS:
        if not (done / step).exists():
            began = time.monotonic()
            getattr(recipe, step)()
            (done / step).write_text(f"{time.monotonic() - began:.0f} s\n")
        print(f"{step}: {(done / step).read_text().strip()}", flush=True)
        if step == options.until:
            break


if __name__ == "__main__":
    os.umask(0o022)
    main()
