"""The work that every party does, and how a party is asked for it.

A party is a process. A line on its standard input names a piece of work; it does that once and
answers with a line of JSON, {"seconds": …}. Between lines it waits and costs nothing.
"""

import json
import os
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy

IMAGE_SIDE = 448
IMAGE_MEAN = [0.485, 0.456, 0.406]
IMAGE_DEVIATION = [0.229, 0.224, 0.225]
PROMPT_TOKENS = 320
DECODE_STEPS = 16
GREATEST_BATCH = 8
VOCABULARY = 64_000
TRAINING_TOKENS = 512


def token(position, sequence=0):
    """What stands at a position: nothing that a cache or a table could make use of."""
    return (position * 7919 + sequence * 104_729 + 4242) % VOCABULARY


def prompt(sequence=0, count=PROMPT_TOKENS):
    return [token(position, sequence) for position in range(count)]


def picture():
    """[448, 448, 3] bytes: slopes with noise."""
    y, x = numpy.mgrid[0:IMAGE_SIDE, 0:IMAGE_SIDE]
    noise = numpy.random.default_rng(7).integers(0, 64, (IMAGE_SIDE, IMAGE_SIDE, 3))
    slopes = numpy.stack([x * 191 // 447, y * 191 // 447, (x + y) * 191 // 894], axis=-1)
    return (slopes + noise).astype(numpy.uint8)


def pixels():
    """[3, 448, 448] float32, normalized."""
    scaled = picture().astype(numpy.float32) / 255
    normal = (scaled - numpy.float32(IMAGE_MEAN)) / numpy.float32(IMAGE_DEVIATION)
    return numpy.ascontiguousarray(normal.transpose(2, 0, 1))


def write_picture(path):
    """The picture as PNG, for parties that read files."""
    rows = picture()
    height, width, _ = rows.shape

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    Path(path).write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b""))


def answer(works, ready=None):
    """Reads lines and does what they name until there are no more.

    `works` maps a line's first word to a function of the other words, which returns what the
    answer holds beside the time, or nothing. A function may time itself by returning seconds.
    """
    # Libraries that print must not disturb the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if ready:
        ready()
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        words = line.split()
        if not words:
            continue
        if words[0] == "quit":
            break
        try:
            began = time.perf_counter()
            result = works[words[0]](*words[1:]) or {}
            result.setdefault("seconds", time.perf_counter() - began)
        except Exception as error:  # The driver says which party and which work.
            result = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(result) + "\n")
    answers.flush()
