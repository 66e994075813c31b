#!/usr/bin/env python3
"""Draws the held-out pictures and writes a file of questions for each set.

  ./evaluation.py --sources SOURCES --sprites SPRITES --out EVALUATION

  seen        all families in new pictures; drawings, fonts and words as in training
  style       things as OpenMoji draws them, a style that nothing was trained on
  names       one name in ten, never trained on: the answer shall be that it is not sure
  stamps      things as Tux Paint's stamps show them, half of these photographs; never trained on
  words       one word in ten, never trained on
  font        digits and words in Lato, never trained on
  matplotlib  charts as matplotlib draws them
  easy-vqa    the official test split
  fashion     the official test split of Fashion-MNIST

  fixed       twenty questions of the set seen, one of each of twenty tasks: what tests pin

A line of SET.jsonl: image, task, kind, language, question, answer, gold (see turns.Turn).
"""
import argparse
import io
import json
import random
import re
from pathlib import Path

from PIL import Image

from assets import Assets
from canvas import SIDE, Canvas
from families import charts, easyvqa, naming, photos, reading
from families.unsure import unsure_asks
from render import ALL, FAMILIES, GENTLE
from sprites import cut
from turns import Turn, pick
from world import CATEGORIES, COLOURS, GARMENTS, HELD_OUT, SHAPES, TRAINED

QUESTIONS_A_PICTURE = 2


STAMPS = "debian/tuxpaint-stamps-default/usr/share/tuxpaint/stamps"


class Stamps(Assets):
    """Tux Paint's stamps whose caption is a name of ours with one word before it at most."""

    def __init__(self, sources, sprites):
        super().__init__(sources, sprites)
        self.paths = {}
        named = {t.english: t for t in TRAINED}
        for path in sorted((self.sources / STAMPS).rglob("*.png")):
            caption = path.with_suffix(".txt")
            if not caption.exists():
                continue
            first = caption.read_text(encoding="utf-8", errors="replace").split("\n")[0].lower()
            words = re.sub(r"^(an?|the|some) |[.!]$", "", first.strip()).split(" ")
            # A sea lion is no lion.
            if len(words) > 1 and words[0] in ("sea", "race", "fire", "post", "tractor"):
                continue
            thing = named.get(" ".join(words)) or named.get(" ".join(words[1:]))
            if thing:
                self.paths.setdefault(thing, []).append(path)
        self.things = sorted(self.paths, key=lambda t: t.english)

    def sprite(self, rng, thing):
        return cut(Image.open(rng.choice(self.paths[thing])))


class Writer:
    def __init__(self, out, name):
        self.out, self.name, self.rows, self.pictures = out, name, [], 0
        (out / "images" / name).mkdir(parents=True, exist_ok=True)

    def add(self, picture, turns, family):
        """A JPEG and the questions about it, each of which is asked by itself."""
        path = f"images/{self.name}/{self.pictures:05}.jpg"
        self.pictures += 1
        (self.out / path).write_bytes(picture)
        for turn in turns:
            self.rows.append({
                "image": path, "task": f"{family}/{turn.task}", "kind": turn.kind,
                "language": turn.language, "question": turn.question, "answer": turn.answer,
                "gold": turn.gold or turn.answer})

    def finish(self):
        with open(self.out / f"{self.name}.jsonl", "w", encoding="utf-8") as file:
            for row in self.rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{self.name}: {self.pictures} pictures, {len(self.rows)} questions", flush=True)


def drawn(writer, family, draw, assets, count, seed, only=None):
    """`count` pictures of a family, of whose questions those of some tasks alone may be taken."""
    for number in range(count):
        rng = random.Random(f"{seed}/{writer.name}/{family}/{number}")
        canvas, asks = draw(rng, assets)
        asks = [a for a in asks if only is None or a.task in only]
        if asks:
            writer.add(canvas.encoded(family in GENTLE),
                       pick(rng, asks, QUESTIONS_A_PICTURE), family)


def held_out_names(writer, assets, count, seed):
    for number in range(count):
        rng = random.Random(f"{seed}/names/{number}")
        canvas, _ = naming.draw(rng, assets)
        writer.add(canvas.encoded(), pick(rng, unsure_asks(), 1), "names")


def matplotlib_chart(rng, figures):
    """A bar, line or pie chart in matplotlib's own style, with the questions of our charts."""
    kind = rng.choice(["bar", "line", "pie"])
    figure = figures.figure(figsize=(1.12, 1.12), dpi=100)
    axes = figure.add_axes([0.2, 0.18, 0.78, 0.78] if kind != "pie" else [0, 0, 1, 1])
    axes.tick_params(labelsize=7, length=1.5, pad=1)
    count = rng.randint(3 if kind == "line" else 2, 5)
    top = 10
    values = charts.values_up_to(rng, count, top)
    if kind == "pie":
        while sorted(values)[-1] < 1.3 * sorted(values)[-2]:
            values = [rng.randint(1, 10) for _ in range(count)]
        colours = rng.sample(charts.INKS, count)
        axes.pie(values, colors=[tuple(v / 255 for v in COLOURS[c][1]) for c in colours],
                 wedgeprops={"edgecolor": "white", "linewidth": 0.7})
        big = colours[values.index(max(values))]
        asks = [charts.Ask("largest slice", "colour", [("Which slice is the largest?", big)],
                           [("哪一块最大？", f"{COLOURS[big][0]}。")], (big, COLOURS[big][0])),
                charts.Ask("parts", "number", [("How many slices are there?", str(count))],
                           [("有几块？", f"{count}块。")], (str(count),) * 2),
                charts.chart_kind("pie", "饼图")]
    else:
        letters = list(charts.LETTERS[:count])
        axes.set_ylim(0, top + 0.5)
        axes.set_yticks([0, 5, 10])
        if kind == "bar":
            axes.bar(letters, values, color="C" + str(rng.randrange(4)))
        else:
            axes.plot(letters, values, marker="o", markersize=3, color="C" + str(rng.randrange(4)))
        part = ("bar", "条形") if kind == "bar" else ("point", "点")
        asks = charts.value_asks(rng, values, None, *part)
        asks.append(charts.chart_kind(*(("bar", "条形图") if kind == "bar" else ("line", "折线图"))))
    file = io.BytesIO()
    figure.savefig(file, format="png")
    figures.close(figure)
    image = Image.open(file).convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)
    canvas = Canvas(rng, "white", plain=True)
    canvas.image = image
    return canvas, asks


def matplotlib_charts(writer, count, seed):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    for number in range(count):
        rng = random.Random(f"{seed}/matplotlib/{number}")
        canvas, asks = matplotlib_chart(rng, pyplot)
        file = io.BytesIO()
        canvas.image.save(file, "JPEG", quality=95)
        writer.add(file.getvalue(), pick(rng, asks, QUESTIONS_A_PICTURE), "charts")


def jpeg(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return file.getvalue()


def easy_vqa(writer, assets):
    """Every question of the test split, by its own words, with a capital to begin."""
    for number, pairs in sorted(easyvqa.read(assets.sources, "test").items()):
        turns = [Turn(easyvqa.kind(a), easyvqa.kind(a), "en", q, a, a) for q, a in pairs]
        writer.add(jpeg(easyvqa.picture(assets, "test", number)), turns, "easy-vqa")


def fashion(writer, assets):
    """One question for each picture of the test split."""
    pictures, classes = photos.read(assets.sources, "t10k")
    question = "Which kind of clothing is shown? Answer in a word."
    for pixels, number in zip(pictures, classes):
        rng = random.Random(0)
        canvas, _ = photos.photo(rng, pixels, augment=False)
        name = GARMENTS[number][0]
        writer.add(jpeg(canvas.image),
                   [Turn("garment", "garment", "en", question, name, name)], "fashion")


def fixed(writer):
    """One question of a task, by turns in English and Chinese, over all families."""
    by_task = {}
    for row in writer.rows:
        by_task.setdefault((row["task"].split("/")[0], row["task"]), []).append(row)
    families = list(dict.fromkeys(family for family, _ in by_task))
    tasks = [[t for t in by_task if t[0] == family] for family in families]
    # The first tasks of all families before the second ones of any.
    order = [column[i] for i in range(20) for column in tasks if i < len(column)][:20]
    rows = []
    for index, task in enumerate(order):
        language = "zh" if index % 3 == 2 else "en"
        rows.append(next((r for r in by_task[task] if r["language"] == language),
                         by_task[task][0]))
    with open(writer.out / "fixed.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def terms():
    """What may be named, by kind: an answer is read by the terms that it holds."""
    both = {
        "name": [(t.english, t.chinese) for t in TRAINED],
        "category": list(CATEGORIES.items()),
        "colour": [(c, chinese) for c, (chinese, _) in COLOURS.items()],
        "shape": list(SHAPES.items()),
        "garment": GARMENTS,
        "side": [("left", "左边"), ("right", "右边"), ("above", "上面"), ("below", "下面")],
        "place": list(naming.PLACES.values()),
        "yes": [("yes", "是"), ("no", "不是")],
        "chart": [("bar", "条形图"), ("line", "折线图"), ("pie", "饼图")],
        "trend": [("rises", "上升"), ("falls", "下降")],
        "angle": [("acute", "锐角"), ("right", "直角"), ("obtuse", "钝角")],
        "way": [("horizontal", "水平"), ("vertical", "竖直")],
        "document": [("receipt", "收据"), ("table", "表格")],
        "photo": [("photo", "照片"), ("drawing", "图画")],
        "mark": [(letter, letter) for letter in charts.LETTERS],
        "unsure": [("not sure", "不确定")],
    }
    return {kind: {"en": [e for e, _ in pairs], "zh": [z for _, z in pairs]}
            for kind, pairs in both.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", required=True, type=Path)
    parser.add_argument("--sprites", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--pictures", type=int, default=6000, help="of the set seen")
    parser.add_argument("--held-out", type=int, default=300, help="of each smaller set")
    parser.add_argument("--seed", default="evaluation")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    def assets(**changes):
        return Assets(options.sources, options.sprites, **changes)

    seen, few, seed = assets(), options.held_out, options.seed
    writer = Writer(options.out, "seen")
    for family in ALL:
        if family not in ("talk", "easyvqa", "photos"):
            drawn(writer, family, FAMILIES[family].draw, seen,
                  round(ALL[family] * options.pictures), seed)
    writer.finish()
    fixed(writer)
    for name, family, draws, drawn_from, only in [
        ("style", "naming", naming.draw, assets(style="openmoji"),
         ("name", "category", "is it", "which")),
        ("stamps", "naming", naming.draw, Stamps(options.sources, options.sprites), ("name",)),
        ("words", "reading", reading.word, assets(words="unseen"), ("word", "spell")),
        ("font", "reading", lambda r, a: r.choice([reading.digits, reading.word])(r, a),
         assets(font="unseen"), ("digits", "word")),
    ]:
        writer = Writer(options.out, name)
        drawn(writer, family, draws, drawn_from, few, seed, only)
        writer.finish()
    writer = Writer(options.out, "names")
    unnamed = assets()
    unnamed.things = HELD_OUT
    held_out_names(writer, unnamed, few, seed)
    writer.finish()
    for name, fill in [("matplotlib", lambda w: matplotlib_charts(w, few, seed)),
                       ("easy-vqa", lambda w: easy_vqa(w, seen)),
                       ("fashion", lambda w: fashion(w, seen))]:
        writer = Writer(options.out, name)
        fill(writer)
        writer.finish()
    (options.out / "terms.json").write_text(
        json.dumps(terms(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
