#!/usr/bin/env python3
"""Draws the pictures that are shipped to be asked about, larger than the model sees them.

  ./pictures.py --sprites SPRITES --sources SOURCES --out compose/pictures
"""
import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from assets import LATIN
from world import COLOURS

SIDE = 224


def ground(name):
    return Image.new("RGB", (SIDE, SIDE), COLOURS[name][1])


def lay(picture, sprites, name, size, x, y):
    """A drawing, its middle at (x, y)."""
    sprite = Image.open(sprites / "noto" / f"{name}.png").convert("RGBa")
    scale = size / max(sprite.size)
    drawn = sprite.resize([round(s * scale) for s in sprite.size], Image.BICUBIC).convert("RGBA")
    picture.paste(drawn, (round(x - drawn.width / 2), round(y - drawn.height / 2)), drawn)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("sprites", "sources", "out"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    options = parser.parse_args()
    cat = ground("teal")
    lay(cat, options.sprites, "cat", 150, 118, 116)
    cat.save(options.out / "drawn-cat.jpg", quality=92)
    pair = ground("white")
    lay(pair, options.sprites, "bicycle", 96, 58, 120)
    lay(pair, options.sprites, "apple", 88, 166, 104)
    pair.save(options.out / "bicycle-apple.jpg", quality=92)
    number = ground("blue")
    font = ImageFont.truetype(str(options.sources / LATIN[1]), 110)
    ImageDraw.Draw(number).text((SIDE / 2, SIDE / 2), "47", font=font, fill=COLOURS["white"][1],
                                anchor="mm")
    number.save(options.out / "number.jpg", quality=92)
    dogs = ground("white")
    for x, y in [(60, 64), (164, 76), (92, 166)]:
        lay(dogs, options.sprites, "dog", 76, x, y)
    dogs.save(options.out / "three-dogs.jpg", quality=92)


if __name__ == "__main__":
    main()
