#!/usr/bin/env python3
"""A contact sheet of samples: pictures, what is said about them, what their patches show.

  ./sheet.py --data DATA --family naming --out sheet.png [--first 0] [--count 12] [--classes]
"""
import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from canvas import GRID, PATCH, SIDE

FONT = "debian/fonts-wqy-microhei/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
WIDTH, HEIGHT, COLUMNS = 330, 420, 4


def text(drawing, font, x, y, words, fill):
    """Writes in lines as long as the column is wide; returns where the next begins."""
    line = ""
    for sign in words.replace("\n", " / "):
        if font.getlength(line + sign) > WIDTH - 14:
            drawing.text((x, y), line, font=font, fill=fill)
            y, line = y + 14, ""
        line += sign
    drawing.text((x, y), line, font=font, fill=fill)
    return y + 15


def short(name):
    return name.split(" ", 1)[-1][:5]


def overlay(image, sample, classes, font):
    """The picture twice as large, with each patch's class and colour written over it."""
    large = image.resize((2 * SIDE, 2 * SIDE), Image.NEAREST).convert("RGBA")
    veil = Image.new("RGBA", large.size, (255, 255, 255, 110))
    large.alpha_composite(veil)
    drawing = ImageDraw.Draw(large)
    for index, (what, tone) in enumerate(zip(sample["patches"]["what"],
                                             sample["patches"]["colour"])):
        x, y = index % GRID * 2 * PATCH, index // GRID * 2 * PATCH
        drawing.rectangle((x, y, x + 2 * PATCH, y + 2 * PATCH), outline=(0, 0, 0, 60))
        name = "" if what == 0 else "?"
        if what > 0:
            name = short(classes["what"]["classes"][what]["name"])
        drawing.text((x + 1, y), name, font=font, fill=(200, 0, 0))
        name = "" if tone < 0 else classes["colour"]["classes"][tone]["name"][:4]
        drawing.text((x + 1, y + 13), name, font=font, fill=(0, 0, 160))
    return large


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--sources", required=True, type=Path)
    parser.add_argument("--family", required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--classes", action="store_true")
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    with open(options.data / f"{options.family}.jsonl", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    samples = lines[options.first:options.first + options.count]
    classes = json.loads((options.data / "classes.json").read_text(encoding="utf-8"))
    classes = classes["groups"]
    font = ImageFont.truetype(str(options.sources / FONT), 12)
    tiny = ImageFont.truetype(str(options.sources / FONT), 10)
    rows = -(-len(samples) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * WIDTH, rows * HEIGHT), "white")
    drawing = ImageDraw.Draw(sheet)
    for index, sample in enumerate(samples):
        x, y = index % COLUMNS * WIDTH, index // COLUMNS * HEIGHT
        if "image" in sample:
            image = Image.open(options.data / "images" / sample["image"])
            large = (overlay(image, sample, classes, tiny) if options.classes
                     else image.resize((2 * SIDE, 2 * SIDE), Image.BICUBIC))
            sheet.paste(large.convert("RGB"), (x + 4, y + 4))
        below = y + 2 * SIDE + 8
        for turn in sample["conversations"]:
            human = turn["from"] == "human"
            below = text(drawing, font, x + 4, below, turn["value"].replace("<image>\n", ""),
                         (0, 0, 0) if human else (180, 0, 0))
    sheet.save(options.out)


if __name__ == "__main__":
    main()
