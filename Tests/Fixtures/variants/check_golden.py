"""Compares reference.py with the golden cases beside it (../golden), stage by stage.

Needs numpy, pillow, torch, safetensors, and transformers 4.37 with sentencepiece for the slow
LlamaTokenizer. Prints one line a case and quantity; ends with an error if one is out of bounds.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaTokenizer

from reference import Model, image_pixels, load_checkpoint

BOUND = 1e-5  # largest difference over largest magnitude
PLACEHOLDER = "<IMG_CONTEXT>"


def query(question, image_tokens):
    """The Hermes-2 prompt of one question about one image."""
    image = "<img>" + PLACEHOLDER * image_tokens + "</img>"
    return (
        "<|im_start|>system\nAnswer the questions.<|im_end|>"
        f"<|im_start|>user\n{image}\n{question}<|im_end|><|im_start|>assistant\n")


def sha256(image):
    return hashlib.sha256(image.tobytes()).hexdigest()


def check(folder):
    expected = json.loads((folder / "expected.json").read_text())
    config, weights = load_checkpoint(folder / "checkpoint")
    model = Model(config, weights)
    bad = []

    def close(name, found, wanted):
        difference = float((found - wanted).abs().max() / wanted.abs().max())
        print(f"{folder.name:18} {name:10} {difference:.2e}")
        if not difference <= BOUND:
            bad.append(name)

    def same(name, found, wanted):
        print(f"{folder.name:18} {name:10} {'same' if found == wanted else 'DIFFERS'}")
        if found != wanted:
            bad.append(name)

    def dump(name):
        return torch.from_numpy(np.load(folder / "dump" / f"{name}.npy"))

    pixels, decoded, resized = image_pixels(folder / "image.jpg", config["force_image_size"])
    same("decoded", sha256(decoded), expected["pixels"]["decoded_sha256"])
    same("resized", sha256(resized), expected["pixels"]["resized_sha256"])
    close("pixels", pixels, dump("pixels"))
    features = model.features(pixels)
    close("vit", features, dump("vit"))
    rows = model.project(features)
    close("projector", rows, dump("projector"))

    tokenizer = LlamaTokenizer.from_pretrained(folder / "checkpoint")
    prompt = query("Describe the picture in one sentence.", rows.shape[0] * rows.shape[1])
    ids = tokenizer(prompt)["input_ids"]
    same("input_ids", ids, expected["input_ids"])
    image_token = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
    x = model.embed(torch.tensor(ids), rows, image_token)
    close("logits", model.language.logits(x, {}), dump("logits_all"))
    greedy, margins, _ = model.greedy(x, len(expected["greedy"]))
    same("greedy", greedy, expected["greedy"])
    close("margins", torch.tensor(margins), torch.tensor(expected["greedy_margins"]))
    return [f"{folder.name}: {name}" for name in bad]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path, nargs="*", help="default: every folder of ../golden")
    golden = Path(__file__).resolve().parent.parent / "golden"
    cases = parser.parse_args().cases or sorted(p for p in golden.iterdir() if p.is_dir())
    with torch.inference_mode():
        failures = [failure for case in cases for failure in check(case)]
    if failures:
        raise SystemExit("out of bounds: " + ", ".join(failures))
