"""Small photographs of clothes: Fashion-MNIST, as its idx files have them."""
import functools
import gzip

import numpy
from PIL import Image

from canvas import SIDE, Canvas
from turns import Ask, choice, yes_no
from world import CLASSES, GARMENTS

FOLDER = "debian/dataset-fashion-mnist/usr/share/datasets/fashion-mnist"


@functools.cache
def read(sources, split):
    """Pictures [N, 28, 28] and classes [N] of the official split, "train" or "t10k"."""
    with gzip.open(sources / FOLDER / f"{split}-images-idx3-ubyte.gz") as file:
        pictures = numpy.frombuffer(file.read(), numpy.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(sources / FOLDER / f"{split}-labels-idx1-ubyte.gz") as file:
        return pictures, numpy.frombuffer(file.read(), numpy.uint8, offset=8)


def phrase(english):
    return english if english == "trousers" else (
        f"{'an' if english[0] in 'aeiou' else 'a'} {english}")


def garment_asks(rng, english, chinese):
    verb = "These are" if english == "trousers" else "This is"
    other = rng.choice([g for g in GARMENTS if g[0] != english])
    asked = (english, chinese) if rng.random() < 0.5 else other
    return [
        Ask("garment", "garment",
            [("What piece of clothing is this?", f"{verb} {phrase(english)}."),
             ("Which kind of clothing is shown? Answer in a word.", english)],
            [("这是什么衣物？", f"这是{chinese}。")], (english, chinese), 4, "garment"),
        yes_no("garment is", rng, asked[0] == english,
               (f"{'Are these' if asked[0] == 'trousers' else 'Is this'} {phrase(asked[0])}?",
                f"这是{asked[1]}吗？"),
               (f"{'these are' if english == 'trousers' else 'it is'} {phrase(english)}",
                f"这是{chinese}"), "garment", 1),
        choice("garment choice", rng, ("Which piece of clothing is shown?", "这是哪种衣物？"),
               (english, chinese), [g for g in GARMENTS if g[0] != english], "garment", 1),
    ]


def photo(rng, pixels, augment=True):
    """A grey picture of 28 x 28 as one of SIDE x SIDE; the class covers what is not black."""
    canvas = Canvas(rng, None, plain=True)
    image = Image.fromarray(pixels)
    if augment and rng.random() < 0.5:
        image = image.transpose(Image.FLIP_LEFT_RIGHT)
    side = SIDE if not augment else rng.randint(SIDE - 16, SIDE + 12)
    image = image.resize((side, side), Image.BICUBIC)
    x = y = (SIDE - side) // 2
    if augment:
        x, y = x + rng.randint(-5, 5), y + rng.randint(-5, 5)
    whole = Image.new("L", (SIDE, SIDE))
    whole.paste(image, (x, y))
    canvas.image = Image.merge("RGB", [whole] * 3)
    return canvas, whole.point(lambda v: 255 if v > 24 else 0)


def draw(rng, assets):
    pictures, classes = read(assets.sources, "train")
    index = rng.randrange(len(pictures))
    english, chinese = GARMENTS[classes[index]]
    canvas, mask = photo(rng, pictures[index])
    canvas.cover(mask, CLASSES.of("garment", english))
    asks = garment_asks(rng, english, chinese)
    asks.append(Ask("photo kind", "photo", [("Is this a drawing or a photo?", "A photo.")],
                    [("这是图画还是照片？", "照片。")], ("photo", "照片"), 0.5, "kind"))
    return canvas, asks
