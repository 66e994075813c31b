"""One thing, somewhere on a ground: its name, kind, place, and the ground's colour."""
from canvas import SIDE, Canvas, turned
from turns import Ask, capital, choice, yes_no
from world import CATEGORIES, CLASSES, COLOURS

PLACES = {
    (0, 0): ("top left", "左上"), (1, 0): ("top", "上方"), (2, 0): ("top right", "右上"),
    (0, 1): ("left", "左边"), (1, 1): ("center", "中间"), (2, 1): ("right", "右边"),
    (0, 2): ("bottom left", "左下"), (1, 2): ("bottom", "下方"), (2, 2): ("bottom right", "右下"),
}
KINDS = {c: f"{'an' if c[0] in 'aeiou' else 'a'} {c}" for c in CATEGORIES}
KINDS.update(food="a food", fruit="a fruit", clothing="a piece of clothing", nature="nature",
             household="a household item", device="a device", stationery="stationery",
             instrument="a musical instrument")


def be(thing):
    return "These are" if thing.number == "many" else "This is"


def it_is(thing):
    return ("these are " if thing.number == "many" else "it is ") + thing.phrase


def name_asks(thing):
    en, zh = thing.phrase, thing.chinese
    return [
        Ask("name", "name",
            [("What is this?", f"{be(thing)} {en}."), ("What do you see?", f"I see {en}."),
             ("Name the object.", thing.english), ("What is in the picture?", f"{capital(en)}."),
             ("What is this? Answer in a word.", thing.english),
             ("Which thing is shown?", thing.english)],
            [("这是什么？", f"这是{zh}。"), ("你看到了什么？", f"我看到{zh}。"),
             ("图中是什么？", f"{zh}。"), ("用一个词回答：这是什么？", zh)],
            (thing.english, zh), 3, "what"),
        Ask("category", "category",
            [("What kind of thing is it?", f"It is {KINDS[thing.category]}."),
             ("Which category does it belong to?", thing.category)],
            [("这是哪一类东西？", CATEGORIES[thing.category]),
             ("它属于什么类别？", f"它属于{CATEGORIES[thing.category]}。")],
            (thing.category, CATEGORIES[thing.category]), 0.6, "what"),
    ]


def is_it(rng, thing, things):
    """Half the questions are about the thing, half about another, often of its kind."""
    asked = thing
    if rng.random() < 0.5:
        near = [t for t in things if t.category == thing.category and t is not thing]
        asked = rng.choice(near if rng.random() < 0.5 and near else things)
    verb = "Are these" if asked.number == "many" else "Is this"
    return yes_no(
        "is it", rng, asked is thing,
        (f"{verb} {asked.phrase}?", f"这是{asked.chinese}吗？"),
        (it_is(thing), f"这是{thing.chinese}"), "what", 1.2)


def ground_asks(colour):
    if colour is None:
        return []
    chinese = COLOURS[colour][0]
    return [Ask("ground", "colour",
                [("What color is the background?", f"The background is {colour}."),
                 ("Which color is behind it?", colour),
                 ("What colour is the background? Answer in a word.", colour)],
                [("背景是什么颜色？", f"背景是{chinese}。"), ("它后面是什么颜色？", chinese)],
                (colour, chinese), 1.2, "ground")]


def place_ask(x, y):
    """Thirds of the picture by the middle of what is drawn."""
    english, chinese = PLACES[min(2, int(3 * x / SIDE)), min(2, int(3 * y / SIDE))]
    return Ask("place", "place",
               [("Where is it in the picture?", f"In the {english}." if english == "center"
                 else f"At the {english}."),
                ("Where is it? Answer in short.", english)],
               [("它在图的哪里？", f"在{chinese}。"), ("它在哪个位置？", chinese)],
               (english, chinese), 0.8, "place")


def draw(rng, assets):
    thing = rng.choice(assets.things)
    easy = assets.easy
    ground = rng.choice(list(COLOURS)) if rng.random() < (0.2 if easy else 0.6) else None
    canvas = Canvas(rng, ground, plain=easy, light=easy)
    size = int(SIDE * rng.triangular(0.6 if easy else 0.32, 0.95, 0.75 if easy else 0.7))
    drawn = turned(rng, assets.sprite(rng, thing), size, 0 if easy else 12, not easy)
    x = rng.randint(-4, max(-4, SIDE - drawn.width + 4))
    y = rng.randint(-4, max(-4, SIDE - drawn.height + 4))
    canvas.paste(drawn, x, y, CLASSES.of("thing", thing.english))
    asks = name_asks(thing) + ground_asks(ground)
    asks.append(is_it(rng, thing, assets.things))
    asks.append(choice(
        "which", rng, ("Which of these is shown?", "图中是哪一个？"), (thing.english, thing.chinese),
        [(t.english, t.chinese) for t in assets.things if t is not thing], "what", 0.8))
    middle = (x + drawn.width / 2, y + drawn.height / 2)
    # Between two thirds the answer would be a matter of taste.
    if size < 0.6 * SIDE and all(abs(3 * v / SIDE - e) > 0.15 for v in middle for e in (1, 2)):
        asks.append(place_ask(*middle))
    if ground:
        chinese = COLOURS[ground][0]
        asks.append(Ask(
            "caption", "text",
            [("Describe the picture.", f"{capital(thing.phrase)} on a"
              f"{'n' if ground[0] == 'o' else ''} {ground} background.")],
            [("描述这幅图。", f"{chinese}背景上的{thing.chinese}。")],
            (thing.english, thing.chinese), 0.8, "what"))
    return canvas, asks
