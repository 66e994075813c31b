#!/usr/bin/env python3
"""Draws the pictures of this folder and writes hashes.json: what Pillow makes of each.

    python3 make_images.py          # needs Pillow >= 13, and cjpeg and jpegtran on the path

hashes.json holds, for each file, the SHA-256 of `Image.open(file).convert("RGB")` and of its
bicubic resizes. `before13` are the resizes whose two passes an older Pillow makes in the other
order, computed here as two resizes of one axis each.
"""

import hashlib
import json
import math
import random
import struct
import subprocess
import zlib
from pathlib import Path

from PIL import Image, features

HERE = Path(__file__).parent
RANDOM = random.Random(20240212)


# --- Scenes

def scene(width, height):
    """Sky, hills, a house and grain: smooth areas, hard edges, every frequency."""
    picture = Image.new("RGB", (width, height))
    pixels = picture.load()
    for y in range(height):
        for x in range(width):
            u, v = x / width, y / height
            hill = 0.6 + 0.08 * math.sin(9 * u) + 0.03 * math.sin(31 * u)
            if v < hill:
                color = [70 + 120 * v, 130 + 110 * v, 235]
                if (u - 0.8) ** 2 + (v - 0.2) ** 2 < 0.008:
                    color = [255, 240, 120]
            else:
                color = [60 + 60 * v, 150 - 60 * v, 50 + 20 * math.sin(400 * u * v)]
            if 0.2 < u < 0.45 and 0.4 < v < 0.75:
                color = [190, 60, 50] if (x // 6 + y // 4) % 2 else [210, 190, 170]
            pixels[x, y] = tuple(
                min(255, max(0, int(sample + RANDOM.uniform(-12, 12)))) for sample in color)
    return picture


def with_alpha(picture):
    width, height = picture.size
    alpha = Image.new("L", picture.size)
    alpha.putdata([(x * 7 + y * 3) % 256 for y in range(height) for x in range(width)])
    picture = picture.copy()
    picture.putalpha(alpha)
    return picture


# --- PNG, written by hand because Pillow does not write all variants

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2)]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def paeth(a, b, c):
    distances = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    return (a, b, c)[distances.index(min(distances))]


def filtered(rows, step):
    """Rows with every filter type in turn."""
    out, previous = b"", bytes(len(rows[0])) if rows else b""
    for number, row in enumerate(rows):
        kind, line = number % 5, bytearray()
        for i, sample in enumerate(row):
            a, b, c = (row[i - step] if i >= step else 0, previous[i],
                       previous[i - step] if i >= step else 0)
            line.append((sample - (0, a, b, (a + b) // 2, paeth(a, b, c))[kind]) & 255)
        out, previous = out + bytes([kind]) + bytes(line), row
    return out


def png(width, height, depth, kind, interlaced=False, chunks=b""):
    count, top = SAMPLES[kind], (1 << depth) - 1

    def sample(x, y, channel):
        smooth = (x * 9 + y * 5 + 60 * channel) % 256 * top // 255
        # Small values too: those of 16-bit grey are where Pillow clips.
        return (smooth, RANDOM.randint(0, min(top, 300)))[(x + y) % 4 == 0]

    grid = [[[sample(x, y, channel) for channel in range(count)] for x in range(width)]
            for y in range(height)]

    def packed(pixels):
        bits = "".join(format(s, f"0{depth}b") for pixel in pixels for s in pixel)
        bits += "0" * (-len(bits) % 8)
        return bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))

    data = b""
    for x0, y0, dx, dy in PASSES if interlaced else [(0, 0, 1, 1)]:
        rows = [packed(grid[y][x0::dx]) for y in range(y0, height, dy)]
        if rows and rows[0]:
            data += filtered(rows, max(1, count * depth // 8))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    data = zlib.compress(data, 9)
    half = len(data) // 2
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks
            + chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:]) + chunk(b"IEND", b""))


def palette(entries):
    return chunk(b"PLTE", bytes(RANDOM.randrange(256) for _ in range(3 * entries)))


def write_pngs():
    def write(name, *arguments, **named):
        (HERE / f"{name}.png").write_bytes(png(*arguments, **named))

    for depth in (1, 2, 4, 8, 16):
        write(f"grey-{depth}", 37, 23, depth, 0)
    write("grey-2-interlaced", 37, 23, 2, 0, interlaced=True)
    write("grey-8-trns", 37, 23, 8, 0, chunks=chunk(b"tRNS", b"\0\x05"))
    write("grey-16-interlaced", 21, 34, 16, 0, interlaced=True)
    for depth in (8, 16):
        write(f"grey-alpha-{depth}", 37, 23, depth, 4)
        write(f"rgb-{depth}", 37, 23, depth, 2)
        write(f"rgba-{depth}", 37, 23, depth, 6)
        write(f"rgba-{depth}-interlaced", 21, 34, depth, 6, interlaced=True)
    write("rgb-8-trns-gamma", 37, 23, 8, 2, chunks=chunk(b"gAMA", struct.pack(">I", 100000))
          + chunk(b"sBIT", b"\5\6\5") + chunk(b"tRNS", bytes(6)))
    for depth in (1, 2, 4, 8):
        write(f"palette-{depth}", 37, 23, depth, 3, chunks=palette(1 << depth))
    write("palette-4-interlaced", 21, 34, 4, 3, interlaced=True, chunks=palette(16))
    write("palette-8-trns", 37, 23, 8, 3, chunks=palette(256) + chunk(b"tRNS", bytes(range(99))))
    write("palette-8-short", 37, 23, 8, 3, chunks=palette(40))
    write("one-pixel", 1, 1, 8, 2)
    write("one-pixel-interlaced", 1, 1, 8, 2, interlaced=True)
    write("one-column-interlaced", 1, 9, 8, 2, interlaced=True)


# --- JPEG

def run(*command, data):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def ppm(picture):
    kind = b"P5" if picture.mode == "L" else b"P6"
    return kind + b"\n%d %d\n255\n" % picture.size + picture.tobytes()


def write_jpegs():
    small = scene(83, 61)

    def cjpeg(name, *options, picture=small):
        (HERE / f"{name}.jpg").write_bytes(run("cjpeg", *options, data=ppm(picture)))

    for name, factors in {"444": "1x1", "422": "2x1", "420": "2x2", "440": "1x2", "411": "4x1",
                          "410": "4x2", "mixed": "2x2,2x1,1x2"}.items():
        cjpeg(f"sampling-{name}", "-quality", "85", "-sample", factors)
        cjpeg(f"sampling-{name}-progressive", "-quality", "85", "-sample", factors,
              "-progressive")
    cjpeg("grey", "-quality", "85", "-grayscale")
    cjpeg("grey-progressive", "-quality", "60", "-grayscale", "-progressive")
    cjpeg("restart", "-quality", "85", "-restart", "2B")
    cjpeg("arithmetic", "-quality", "85", "-arithmetic")
    cjpeg("arithmetic-progressive", "-quality", "85", "-arithmetic", "-progressive")
    cjpeg("rgb", "-quality", "85", "-rgb")
    cjpeg("coarse", "-quality", "4")
    cjpeg("exact", "-quality", "100", "-sample", "1x1")
    for width, height in ((1, 1), (2, 3), (5, 1), (8, 8), (17, 16)):
        cjpeg(f"size-{width}x{height}", "-quality", "90",
              picture=small.crop((20, 20, 20 + width, 20 + height)))

    # One colour component more. Pillow writes CMYK with an Adobe marker whose last byte is
    # the transform: 0 for CMYK. 2 makes a decoder take the same samples for YCCK, and without
    # the marker they are CMYK of which nothing says that it is inverted.
    path = HERE / "cmyk.jpg"
    small.convert("CMYK").save(path, quality=85)
    data = path.read_bytes()
    adobe = data.index(b"\xff\xee\x00\x0eAdobe")
    (HERE / "ycck.jpg").write_bytes(data[:adobe + 15] + b"\2" + data[adobe + 16:])
    (HERE / "cmyk-unmarked.jpg").write_bytes(data[:adobe] + data[adobe + 16:])

    # Orientation 6 (turned) that must not be applied.
    exif = Image.Exif()
    exif[0x0112] = 6
    small.save(HERE / "exif-turned.jpg", quality=85, exif=exif)

    scene(320, 213).save(HERE / "scene.jpg", quality=90)
    scene(200, 457).save(HERE / "scene-tall.jpg", quality=80, progressive=True)
    with_alpha(scene(120, 90)).save(HERE / "scene-alpha.png", optimize=True)


# --- Bombs

def write_bombs():
    """Text and a profile of 16 MB each, in 16 kB."""
    data = zlib.compress(bytes(16 << 20), 9)
    chunks = (chunk(b"iCCP", b"profile\0\0" + data) + chunk(b"zTXt", b"Comment\0\0" + data)
              + chunk(b"iTXt", b"Comment\0\1\0\0\0" + data))
    (HERE / "bombs").mkdir(exist_ok=True)
    (HERE / "bombs" / "chunks.png").write_bytes(png(2, 2, 8, 2, chunks=chunks))


# --- What Pillow makes of them

def digest(picture):
    return hashlib.sha256(picture.tobytes()).hexdigest()


def describe(path, sizes):
    with Image.open(path) as file:
        mode, picture = file.mode, file.convert("RGB")
    width, height = picture.size
    resized = []
    for size in sizes:
        after = picture.resize(size)
        before = picture.resize((size[0], height)).resize(size)
        resized.append({"width": size[0], "height": size[1], "sha256": digest(after)}
                       | ({"before13": digest(before)} if digest(before) != digest(after) else {}))
    return {"mode": mode, "width": width, "height": height, "sha256": digest(picture),
            "resized": resized}


def main():
    assert int(Image.__version__.split(".")[0]) >= 13
    write_pngs()
    write_jpegs()
    write_bombs()
    files = {}
    for path in sorted([*HERE.glob("*.png"), *HERE.glob("*.jpg")]):
        sizes = [(56, 48), (7, 5)]
        if path.stem.startswith("scene"):
            width, height = Image.open(path).size
            sizes += [(448, 448), (1, 1), (width, height), (width, 100), (100, height), (640, 31),
                      (31, 640), (width - 1, height - 3), (width - 1, height - 2), (490, 370),
                      (width // 2, height // 2), (3, height - 1)]
        files[path.name] = describe(path, sizes)
    versions = {"pillow": Image.__version__, "libjpeg_turbo": features.version("libjpeg_turbo")}
    text = json.dumps({"versions": versions, "files": files}, indent=1)
    (HERE / "hashes.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
