"""Tensors of a model folder, read without a library: safetensors is a header and bytes."""

import json
import struct
from pathlib import Path

import numpy


class Checkpoint:
    """The weights of a model folder. Nothing is kept of what was read."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.configuration = json.loads((self.folder / "config.json").read_text())
        self._tensors = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            self._tensors |= headers(path)

    def float32(self, name):
        return read(*self._tensors[name])


def headers(path):
    """For each tensor of a safetensors file where it is: path, offset, bytes, type, shape."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    return {
        name: (path, 8 + length + entry["data_offsets"][0],
               entry["data_offsets"][1] - entry["data_offsets"][0], entry["dtype"],
               entry["shape"])
        for name, entry in header.items() if name != "__metadata__"}


def read(path, offset, size, kind, shape):
    """A tensor as float32."""
    data = numpy.fromfile(path, numpy.uint8, size, offset=offset)
    if kind == "F32":
        return data.view(numpy.float32).reshape(shape)
    if kind == "BF16":
        wide = data.view(numpy.uint16).astype(numpy.uint32) << 16
        return wide.view(numpy.float32).reshape(shape)
    raise SystemExit(f"{path}: a tensor is {kind}; the benchmark's model has BF16 or F32")
