"""easy-VQA's own pictures and questions: one shape of one colour, in English."""
import functools
import json

from PIL import Image

from canvas import SIDE, Canvas
from turns import Ask
from world import CLASSES, COLOURS

FOLDER = "pypi/easy_vqa/easy_vqa/data"


@functools.cache
def read(sources, split):
    """Questions by picture: {number: [(question, answer)]} of "train" or "test"."""
    rows = json.loads((sources / FOLDER / split / "questions.json").read_text())
    found = {}
    for question, answer, number in rows:
        found.setdefault(number, []).append((question[:1].upper() + question[1:], answer))
    return found


def picture(assets, split, number):
    path = assets.sources / FOLDER / split / "images" / f"{number}.png"
    return Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)


def kind(answer):
    return "yes" if answer in ("yes", "no") else (
        "colour" if answer in COLOURS else "shape")


def draw(rng, assets):
    found = read(assets.sources, "train")
    number = rng.choice(sorted(found))
    canvas = Canvas(rng, "white", plain=True)
    canvas.image = picture(assets, "train", number)
    pairs = found[number]
    answers = {kind(a): a for _, a in pairs if kind(a) != "yes"}
    box = canvas.image.convert("L").point(lambda v: 255 if v < 250 else 0)
    # Teal, green and the like are all below white in one channel at least.
    for channel in canvas.image.split():
        box.paste(255, mask=channel.point(lambda v: 255 if v < 235 else 0))
    canvas.cover(box, CLASSES.of("shape", answers.get("shape", "")),
                 CLASSES.colours.get(answers.get("colour"), -1))
    asks = []
    for index, (question, answer) in enumerate(pairs):
        asks.append(Ask("easy-vqa", kind(answer), [(question, answer)], [(question, answer)],
                        (answer, answer), 1.0 if kind(answer) == "yes" else 2.0, str(index)))
    return canvas, asks
