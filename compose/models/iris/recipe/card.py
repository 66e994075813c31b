#!/usr/bin/env python3
"""Fills in the model card: scores, quantised versions, what training took; and thins the logs.

  ./card.py --work WORK

Writes WORK/iris/README.md from card.md, WORK/iris/mistakes.jpg, and
WORK/logs/PHASE/train_log.jsonl, in which a line is the mean of some steps.
"""
import argparse
import json
from pathlib import Path

from PIL import Image

from make import BATCH, TYPES

HERE = Path(__file__).resolve().parent
PHASES = {"first": "vision, easy", "vision": "vision", "all": "everything",
          "more": "everything, the hard oftener"}
#: Steps of a line in a thinned log.
THIN = 50
KEPT = ["loss", "answer_loss", "patch_class_loss", "naming_loss", "patch_accuracy", "learning_rate",
        "grad_norm", "epoch", "samples_per_second", "tokens_per_second", "bubble", "step_seconds"]


def mean(lines, key):
    found = [line[key] for line in lines if key in line]
    return sum(found) / len(found) if found else 0.0


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def thinned(log):
    for start in range(0, len(log), THIN):
        lines = log[start:start + THIN]
        keys = [k for k in KEPT if k in lines[-1]]
        yield {"step": lines[-1]["step"], **{k: float(f"{mean(lines, k):.5g}") for k in keys}}


def flops(config, log, trains_everything):
    """Floating-point operations of a phase: multiplications and additions of the matrix products
    and of attention, forward once and backward twice."""
    vision, language = config["vision_config"], config["llm_config"]
    d, f = vision["hidden_size"], vision["intermediate_size"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    layer = 2 * (patches + 1) * (4 * d * d + 2 * d * f) + 4 * (patches + 1) ** 2 * d
    sample = 2 * patches * 3 * vision["patch_size"] ** 2 * d + vision["num_hidden_layers"] * layer
    total = 3.0 * sample * BATCH * len(log)
    if trains_everything:
        h, m = language["hidden_size"], language["intermediate_size"]
        keys = h * language["num_key_value_heads"] // language["num_attention_heads"]
        weights = language["num_hidden_layers"] * (2 * h * h + 2 * h * keys + 3 * h * m)
        tokens = sum(line["tokens_per_second"] * line["step_seconds"] for line in log)
        labelled = sum(line["labelled_tokens"] for line in log)
        total += 6.0 * (tokens * weights + labelled * h * language["vocab_size"])
        projector = 4 * d * h + h * h
        total += 6.0 * BATCH * len(log) * patches / 4 * projector
    return total


def training(config, logs):
    rows = ["| phase | pictures | hours | pictures/s | bubble | 10¹² operations | loss, first and "
            "last 100 steps | patches named right |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for phase, log in logs.items():
        seconds = sum(line["step_seconds"] for line in log)
        pictures = BATCH * len(log)
        operations = flops(config, log, phase in ("all", "more")) / 1e12
        rows.append(
            f"| {PHASES[phase]} | {pictures:,} | {seconds / 3600:.2f} | {pictures / seconds:.0f} | "
            f"{100 * mean(log, 'bubble'):.0f} % | {operations:.0f} | "
            f"{mean(log[:100], 'loss'):.2f}, {mean(log[-100:], 'loss'):.2f} | "
            f"{100 * mean(log[-100:], 'patch_accuracy'):.0f} % |")
    return "\n".join(rows)


def headlines(scores):
    rows = ["| held out | questions | right % | always % | blind % |", "|---|---:|---:|---:|---:|"]
    for title, s in scores.items():
        rows.append(f"| {title} | {s['n']} | **{s['right']:.1f}** | {s['always']:.1f} | "
                    f"{s['blind']:.1f} |")
    return "\n".join(rows)


def quantised(scores, others):
    rows = [f"| right % | bf16 | {' | '.join(others)} |", "|---|---:" + "|---:" * len(others) + "|"]
    for title, s in scores.items():
        cells = " | ".join(f"{o[title]['right']:.1f}" for o in others.values())
        rows.append(f"| {title} | {s['right']:.1f} | {cells} |")
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path)
    work = parser.parse_args().work
    config = json.loads((work / "iris/config.json").read_text(encoding="utf-8"))
    logs = {phase: read(work / phase / "train_log.jsonl") for phase in PHASES}
    for phase, log in logs.items():
        folder = work / "logs" / phase
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "train_log.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in thinned(log))
    scores, *others = (json.loads((work / name / "scores.json").read_text())["headlines"]
                       for name in ["scores", *(f"scores-{kind}" for kind in TYPES)])
    card = (HERE / "card.md").read_text(encoding="utf-8")
    for mark, text in {"SCORES": headlines(scores), "TRAINING": training(config, logs),
                       "QUANTISED": quantised(scores, dict(zip(TYPES, others)))}.items():
        card = card.replace(f"<!-- {mark} -->", text)
    (work / "iris/README.md").write_text(card, encoding="utf-8")
    Image.open(work / "scores/mistakes.png").convert("RGB").save(work / "iris/mistakes.jpg",
                                                                 quality=85)


if __name__ == "__main__":
    main()
