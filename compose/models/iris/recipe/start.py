#!/usr/bin/env python3
"""Gives the vision encoder of a model of random weights a better start: it looks around itself.

  ./start.py --model MODEL

Attention that must first find out which patch lies beside which learns little from 100,000
pictures. So at the start 32 dimensions of the position embedding hold each patch's place as
sinusoids, and five of the six heads of a layer compare them, turned by one patch: each looks at one
neighbour, as a 3 x 3 convolution does. The sixth is random. All of it is trained further.
(After Zheng et al. 2024, "Structured Initialization for Attention in Vision Transformers"; the
construction by sinusoids is our own.)
"""
import argparse
import json
import math
from pathlib import Path

import numpy

#: Dimensions of a head, all of which hold the place: sine and cosine of FREQUENCIES a direction.
HEAD, FREQUENCIES = 32, 8
NEIGHBOURS = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1), (0, 0)]
#: Makes the softmax of 64 patches give the one that is looked at nearly everything.
SHARPNESS = 1.5
FILE = "model.safetensors"


class Weights:
    """The float32 tensors of a safetensors file, which are changed in place."""

    def __init__(self, path):
        self.path, self.bytes = path, bytearray(path.read_bytes())
        size = int.from_bytes(self.bytes[:8], "little")
        self.entries = json.loads(self.bytes[8:8 + size])
        self.body = 8 + size

    def __getitem__(self, name):
        entry = self.entries["vision_model." + name]
        if entry["dtype"] != "F32":
            raise SystemExit(f"{self.path}: {name} is {entry['dtype']}, not F32")
        begin, end = entry["data_offsets"]
        flat = numpy.frombuffer(self.bytes, numpy.float32, (end - begin) // 4, self.body + begin)
        return flat.reshape(entry["shape"])

    def save(self):
        self.path.write_bytes(self.bytes)


def place(row, column, grid):
    """[HEAD]: the same dot product for each pair of patches that lie alike."""
    waves = numpy.arange(1, FREQUENCIES + 1) * math.pi / grid
    return numpy.concatenate([f(waves * v) for v in (row, column) for f in (numpy.cos, numpy.sin)])


def shifted(rows, columns, grid):
    """[HEAD, HEAD]: takes place(y, x) to place(y - rows, x - columns)."""
    waves = numpy.arange(1, FREQUENCIES + 1) * math.pi / grid
    turn = numpy.zeros((HEAD, HEAD))
    for axis, by in enumerate([rows, columns]):
        cosine, sine = (slice(start, start + FREQUENCIES)
                        for start in (2 * axis * FREQUENCIES, (2 * axis + 1) * FREQUENCIES))
        c, s = numpy.diag(numpy.cos(waves * by)), numpy.diag(numpy.sin(waves * by))
        turn[cosine, cosine], turn[cosine, sine] = c, s
        turn[sine, sine], turn[sine, cosine] = c, -s
    return turn


def fill(weights, config, rng):
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    grid = config["image_size"] // config["patch_size"]

    def random(tensor):
        """As large as its inputs are many, so that what goes through keeps its size."""
        inputs = math.prod(tensor.shape[1:])
        tensor[...] = rng.normal(size=tensor.shape) / math.sqrt(inputs)

    patches, positions = (weights[f"embeddings.{name}"] for name in
                          ["patch_embedding.weight", "position_embedding"])
    random(patches)
    # These dimensions are the place's alone, here and behind every layer.
    patches[:HEAD] = 0
    positions[...] = 0
    for index in range(grid * grid):
        positions[0, 1 + index, :HEAD] = place(*divmod(index, grid), grid)
    turn = 0
    for layer in range(layers):
        names = [f"encoder.layers.{layer}.{n}" for n in
                 ["attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"]]
        qkv, *_ = tensors = [weights[name] for name in names]
        for tensor in tensors:
            random(tensor)
        for head in range(config["num_attention_heads"] - 1):
            query = slice(head * HEAD, (head + 1) * HEAD)
            key = slice(width + head * HEAD, width + (head + 1) * HEAD)
            qkv[query] = qkv[key] = 0
            qkv[query, :HEAD] = numpy.eye(HEAD)
            qkv[key, :HEAD] = shifted(*NEIGHBOURS[turn % len(NEIGHBOURS)], grid)
            turn += 1
        weights[f"encoder.layers.{layer}.attn.q_norm.weight"][...] = SHARPNESS
        tensors[1][:HEAD] = 0
        tensors[3][:HEAD] = 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, type=Path)
    options = parser.parse_args()
    config = json.loads((options.model / "config.json").read_text(encoding="utf-8"))
    weights = Weights(options.model / FILE)
    fill(weights, config["vision_config"], numpy.random.default_rng(1))
    weights.save()


if __name__ == "__main__":
    main()
