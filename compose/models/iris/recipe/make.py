#!/usr/bin/env python3
"""Makes the model again, from nothing: fetches, renders, trains in four phases, packs, and asks.

  python3 -m venv VENV && VENV/bin/pip install -r requirements.txt
  VENV/bin/python make.py --work WORK --bin .build/release [--until render]

Each step is done once: WORK/done/STEP says so, and training goes on where it was stopped.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
STEPS = ["fetch", "sprites", "render", "tokenizer", "evaluation", "start", "first", "vision", "all",
         "again", "more", "pack", "score", "card"]
#: Steps that are trained a second time, to compare.
AGAIN = 50
SAME = ["step", "loss", "grad_norm", "answer_loss", "patch_class_loss", "naming_loss"]
BATCH = 8
#: Quantised versions, which are scored beside the model.
TYPES = ["q8", "q4"]


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
                    self.data, "--first", self.options.first, "--vision", self.options.vision,
                    "--all", self.options.all, "--more", self.options.more)

    def tokenizer(self):
        self.python("tokenizer.py", "--data", self.data, "--out", self.work / "shape")

    def evaluation(self):
        self.python("evaluation.py", "--sources", self.sources, "--sprites", self.sprites_,
                    "--out", self.tests)

    def start(self):
        self.chiasm("random-model", self.work / "start", "--config",
                    self.work / "shape/config.json", "--tokenizer", self.work / "shape/tokenizer",
                    "--type", "float32", "--for-training")
        self.python("start.py", "--model", self.work / "start")

    def first(self):
        self.train("first", self.work / "start", self.options.first)

    def vision(self):
        self.train("vision", self.newest("first"), self.options.vision)

    def all(self):
        self.train("all", self.newest("vision"), self.options.all)

    def more(self):
        """On from the model as it would be shipped, in bfloat16; the class heads begin anew."""
        start = self.work / "more-start"
        shutil.rmtree(start, ignore_errors=True)
        self.chiasm("export", self.newest("all"), start, "--type", "bfloat16")
        self.train("more", start, self.options.more)

    def train(self, phase, model, samples):
        steps = samples // BATCH
        self.steps(phase, model, self.work / phase, steps, "--resume")
        # A run that was asked to end early saved its state and succeeded.
        if self.newest(phase).name != f"checkpoint-{steps}":
            raise SystemExit(f"{phase}: ended before step {steps}; the same command goes on")

    def steps(self, phase, model, output, steps, *more):
        # The head and the embedding table are one tensor: one language stage. Each stage may use
        # both cores, since with two micro-batches one of the two mostly waits for the other.
        settings = phase if phase in ("all", "more") else "vision"
        self.chiasm("train", "--config", HERE / f"train-{settings}.yaml", "--model", model,
                    "--meta", self.data / f"meta-{phase}.json", "--output", output,
                    "--max-steps", steps, "--threads", 2, "--vision-stages", 1,
                    "--language-stages", 1, *more)

    def again(self):
        """The first steps of the last phase once more: the same losses and norms, to the bit."""
        output, trace = self.work / "again", self.work / "trace.json"
        shutil.rmtree(output, ignore_errors=True)
        # Of the whole phase's length, which the rate's schedule and the losses' weights depend on.
        self.steps("all", self.newest("vision"), output, self.options.all // BATCH,
                   "--stop-after", AGAIN, "--trace", trace)
        logs = [(folder / "train_log.jsonl").read_text().splitlines()[:AGAIN]
                for folder in (self.work / "all", output)]
        measures = [[{k: v for k, v in json.loads(line).items() if k in SAME} for line in log]
                    for log in logs]
        if measures[0] != measures[1]:
            raise SystemExit("the first steps of `all` came out different the second time")
        print(f"again: {AGAIN} steps with the same bits")

    def pack(self):
        """The model folder as it is shipped, and its quantised versions beside it."""
        iris = self.work / "iris"
        for folder in [iris, *map(self.quantised, TYPES)]:
            shutil.rmtree(folder, ignore_errors=True)
        self.chiasm("export", self.newest("more"), iris, "--type", "bfloat16")
        shutil.copy(self.sources / "NOTICE", iris / "NOTICE")
        for kind in TYPES:
            self.chiasm("quantize", iris, self.quantised(kind), "--type", kind)

    def quantised(self, kind):
        return self.work / f"iris-{kind}"

    def newest(self, phase):
        found = [p for p in (self.work / phase).glob("checkpoint-*")
                 if p.name.split("-")[1].isdigit()]
        return max(found, key=lambda p: int(p.name.split("-")[1]))

    def score(self):
        """All questions of all sets, of the quantised versions too; blind, so many of a set."""
        for model, scores, blind in [(self.work / "iris", "scores", 3000)] + [
                (self.quantised(kind), f"scores-{kind}", 1) for kind in TYPES]:
            self.python("score.py", "--model", model, "--data", self.tests, "--out",
                        self.work / scores, "--sources", self.sources, "--bin", self.options.bin,
                        "--blind", blind)

    def card(self):
        """The model card, with its pictures and thinned logs."""
        self.python("card.py", "--work", self.work)
        logs = [self.work / "logs" / phase / "train_log.jsonl"
                for phase in ("first", "vision", "all", "more")]
        self.chiasm("curve", *logs, "--log-scale", "--smoothing", 0.5, "--svg",
                    self.work / "iris/curves.svg")
        self.chiasm("trace", self.work / "trace.json", "--svg", self.work / "iris/pipeline.svg")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--bin", default=Path(".build/release"), type=Path)
    parser.add_argument("--first", type=int, default=60_000, help="samples of the first phase")
    parser.add_argument("--vision", type=int, default=120_000, help="of the second")
    parser.add_argument("--all", type=int, default=88_000, help="of the third")
    parser.add_argument("--more", type=int, default=120_000, help="of the fourth")
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
