"""Coloured shapes: which shape, which colour, where, how many, which is larger."""
import math

from PIL import Image, ImageDraw

from canvas import FINE, SIDE, Canvas, reduced, shade, tint
from families.scenes import places
from families.naming import ground_asks, place_ask
from turns import Ask, capital, choice, joined, number, yes_no
from world import CLASSES, COLOURS, SHAPES


def corners(count, radius, start=-90.0):
    return [(radius * math.cos(math.radians(start + 360 * i / count)),
             radius * math.sin(math.radians(start + 360 * i / count))) for i in range(count)]


def outline(shape, r):
    """Corners around (0, 0), about r away; round ones have many."""
    if shape in ("circle", "oval"):
        high = r if shape == "circle" else 0.6 * r
        return [(x, y * high / r) for x, y in corners(48, r)]
    if shape in ("pentagon", "hexagon", "triangle", "diamond"):
        points = corners({"pentagon": 5, "hexagon": 6, "triangle": 3, "diamond": 4}[shape], r)
        return [(0.66 * x, y) for x, y in points] if shape == "diamond" else points
    if shape == "square":
        return corners(4, r, -45)
    if shape == "rectangle":
        return [(-r, -0.5 * r), (r, -0.5 * r), (r, 0.5 * r), (-r, 0.5 * r)]
    if shape == "star":
        outer, inner = corners(5, r), corners(5, 0.42 * r, -54)
        return [point for both in zip(outer, inner) for point in both]
    if shape == "cross":
        a = 0.33 * r
        return [(-a, -r), (a, -r), (a, -a), (r, -a), (r, a), (a, a), (a, r), (-a, r), (-a, a),
                (-r, a), (-r, -a), (-a, -a)]
    if shape == "arrow":
        return [(-r, -0.28 * r), (0.1 * r, -0.28 * r), (0.1 * r, -0.75 * r), (r, 0),
                (0.1 * r, 0.75 * r), (0.1 * r, 0.28 * r), (-r, 0.28 * r)]
    steps = [2 * math.pi * i / 40 for i in range(40)]
    return [(r * math.sin(t) ** 3,
             -r / 16 * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)
                        - math.cos(4 * t))) for t in steps]


#: How far each may be turned without becoming another.
TURNS = {"square": 12, "diamond": 12, "rectangle": 90, "arrow": 180, "oval": 90, "heart": 20,
         "star": 30, "cross": 15, "triangle": 30}


def drawn_shape(rng, shape, rgb, size, easy=False):
    """RGBA of a shape so many pixels wide at most, turned, and here and there with an edge."""
    side = int(size) * FINE
    fine = Image.new("RGBA", (side, side))
    drawing = ImageDraw.Draw(fine)
    points = outline(shape, 1.0)
    # As large as fits when it is turned.
    r = (side / 2 - FINE) / max(math.hypot(x, y) for x, y in points)
    turn = 0 if shape == "circle" else math.radians(rng.uniform(-1, 1) * TURNS.get(shape, 20))
    turn *= 0.2 if easy else 1
    c, s = math.cos(turn), math.sin(turn)
    edge, width = None, 0
    if rng.random() < 0.25 and not easy:
        edge, width = tint(rng, (30, 30, 30), 20), int(FINE * 1.2)
    drawing.polygon([(side / 2 + r * (c * x - s * y), side / 2 + r * (s * x + c * y))
                     for x, y in points], fill=rgb, outline=edge, width=width)
    return reduced(fine)


def a(colour_or_shape):
    return f"{'an' if colour_or_shape[0] in 'aeiou' else 'a'} {colour_or_shape}"


def contrasting(rng, ground, count=1):
    """Colours that are not the ground's, and not nearly so."""
    near = {"white": ["white"], "black": ["black"], None: []}.get(ground, [ground])
    return rng.sample([c for c in COLOURS if c not in near], count)


def single_asks(rng, shape, colour):
    chinese_shape, chinese = SHAPES[shape], COLOURS[colour][0]
    other = rng.choice([c for c in COLOURS if c != colour])
    asked = colour if rng.random() < 0.5 else other
    other_shape = rng.choice([s for s in SHAPES if s != shape])
    asked_shape = shape if rng.random() < 0.5 else other_shape
    return [
        Ask("colour", "colour",
            [(f"What color is the {shape}?", colour),
             (f"What colour is the {shape}?", f"The {shape} is {colour}."),
             ("What color is the shape?", colour)],
            [(f"{chinese_shape}是什么颜色？", f"{chinese}。"), ("这个图形是什么颜色？", chinese)],
            (colour, chinese), 2, "colour"),
        Ask("shape", "shape",
            [("What shape is in the image?", shape),
             ("Which shape is shown?", f"{capital(a(shape))}."),
             (f"What shape is the {colour} thing?", shape)],
            [("图中是什么图形？", f"{chinese_shape}。"), (f"{chinese}的是什么图形？", chinese_shape)],
            (shape, chinese_shape), 2, "shape"),
        yes_no("shape is", rng, asked_shape == shape,
               (f"Is there {a(asked_shape)} in the image?", f"图中有{SHAPES[asked_shape]}吗？"),
               (f"it is {a(shape)}", f"这是{chinese_shape}"), "shape", 0.8),
        yes_no("colour is", rng, asked == colour,
               (f"Is the {shape} {asked}?", f"{chinese_shape}是{COLOURS[asked][0]}的吗？"),
               (f"the {shape} is {colour}", f"{chinese_shape}是{chinese}的"), "colour", 0.8),
    ]


def several_asks(rng, found):
    """found: (shape, colour, x, y, size), shapes all different, and colours too."""
    asks = []
    for shape, colour, *_ in rng.sample(found, min(2, len(found))):
        asks += single_asks(rng, shape, colour)[:2]
        for ask in asks[-2:]:
            ask.fact += shape
            # With several shapes only questions that name one have one answer.
            ask.english = [w for w in ask.english if shape in w[0] or colour in w[0]]
            ask.chinese = [w for w in ask.chinese
                           if SHAPES[shape] in w[0] or COLOURS[colour][0] in w[0]]
    sizes = sorted(found, key=lambda f: f[4])
    if len(found) == 2 and sizes[1][4] > 1.35 * sizes[0][4]:
        big, small = sizes[1][0], sizes[0][0]
        asks.append(Ask("larger", "shape",
                        [(f"Which is larger, the {found[0][0]} or the {found[1][0]}?", big),
                         ("Which shape is larger?", f"The {big}.")],
                        [("哪个图形更大？", f"{SHAPES[big]}。")], (big, SHAPES[big]), 1, "size"))
        asks.append(Ask("smaller", "shape", [("Which shape is smaller?", f"The {small}.")],
                        [("哪个图形更小？", f"{SHAPES[small]}。")], (small, SHAPES[small]), 0.6,
                        "size"))
    if len(found) == 2 and abs(found[0][2] - found[1][2]) > 25:
        left = min(found, key=lambda f: f[2])[0]
        right = max(found, key=lambda f: f[2])[0]
        asks.append(Ask("which side", "shape",
                        [("Which shape is on the left?", f"The {left}.")],
                        [("左边是什么图形？", f"{SHAPES[left]}。")], (left, SHAPES[left]), 1, "side"))
        asks.append(Ask("which side", "shape",
                        [("Which shape is on the right?", f"The {right}.")],
                        [("右边是什么图形？", f"{SHAPES[right]}。")], (right, SHAPES[right]), 1,
                        "side"))
    listed = joined([a(f"{c} {s}") for s, c, *_ in sorted(found, key=lambda f: f[2])], " and ")
    asks.append(Ask("caption", "text", [("Describe the picture.", capital(listed) + ".")],
                    [("描述这幅图。", "、".join(
                        f"{COLOURS[c][0]}的{SHAPES[s]}"
                        for s, c, *_ in sorted(found, key=lambda f: f[2])) + "。")],
                    ("", ""), 0.7, "all"))
    asks.append(Ask("count", "number", [("How many shapes are there?", str(len(found)))],
                    [("有几个图形？", f"{number(len(found))[1]}个。")], (str(len(found)),) * 2, 0.7,
                    "count"))
    return asks


def same_asks(rng, shape, colours):
    """Some shapes of one kind in two colours at most: counting."""
    total = len(colours)
    name = shape + ("es" if shape == "cross" else "" if total == 1 else "s")
    asks = [Ask("count", "number",
                [(f"How many {shape}{'es' if shape == 'cross' else 's'} are there?", str(total)),
                 ("How many shapes do you see?",
                  f"There {'is' if total == 1 else 'are'} {number(total)[0]} {name}.")],
                [(f"有几个{SHAPES[shape]}？", f"{number(total)[1]}个。"),
                 ("图中有多少个图形？", str(total))], (str(total),) * 2, 2.5, "count"),
            single_asks(rng, shape, colours[0])[1]]
    asks[1].english = asks[1].english[:1]
    asks[1].chinese = asks[1].chinese[:1]
    for colour in sorted(set(colours)):
        some = colours.count(colour)
        if some < total:
            asks.append(Ask("count", "number",
                            [(f"How many {colour} shapes are there?", str(some))],
                            [(f"有几个{COLOURS[colour][0]}的图形？", f"{number(some)[1]}个。")],
                            (str(some),) * 2, 1, f"count {colour}"))
    if len(set(colours)) == 1:
        asks.append(Ask("colour", "colour", [("What color are the shapes?", colours[0])],
                        [("这些图形是什么颜色？", COLOURS[colours[0]][0])],
                        (colours[0], COLOURS[colours[0]][0]), 1.2, "colour"))
    asks.append(choice("count choice", rng, (f"How many {shape}{'es' if shape == 'cross' else 's'}"
                                             " are there?", f"有几个{SHAPES[shape]}？"),
                       (str(total),) * 2, [(str(n),) * 2 for n in range(1, 8) if n != total],
                       "count", 0.6))
    return asks


def put(rng, canvas, shape, colour, x, y, size, easy):
    drawn = drawn_shape(rng, shape, shade(rng, colour), size, easy)
    canvas.paste(drawn, round(x - drawn.width / 2), round(y - drawn.height / 2),
                 CLASSES.of("shape", shape), CLASSES.colours[colour])


def draw(rng, assets):
    easy = assets.easy
    # What is a star must first be learnt without its colour.
    plainest = easy and rng.random() < 0.7
    ground = rng.choice(list(COLOURS)) if not plainest and rng.random() < 0.6 else "white"
    canvas = Canvas(rng, ground, plain=easy or rng.random() < 0.6)
    style = rng.choices(["single", "several", "same"],
                        [1, 0, 0] if plainest else [1, 2, 0] if easy else [3, 4, 3.5])[0]
    if style == "single":
        shape = rng.choice(list(SHAPES))
        colour = "black" if plainest else contrasting(rng, ground)[0]
        size = SIDE * rng.uniform(0.5 if easy else 0.25, 0.9)
        x, y = (rng.uniform(size / 2, SIDE - size / 2) for _ in range(2))
        put(rng, canvas, shape, colour, x, y, size, easy)
        asks = single_asks(rng, shape, colour) + ground_asks(ground)
        if size < 0.5 * SIDE and all(abs(3 * v / SIDE - e) > 0.2 for v in (x, y) for e in (1, 2)):
            asks.append(place_ask(x, y))
        return canvas, asks
    if style == "several":
        count = rng.choice([2, 2, 2, 3, 3, 4])
        shapes = rng.sample(list(SHAPES), count)
        # A circle is an oval, and a square a rectangle: not both in one picture.
        if {"circle", "oval"} <= set(shapes) or {"square", "rectangle"} <= set(shapes):
            shapes = rng.sample(["circle", "square", "triangle", "star", "heart", "arrow"], count)
        room = {2: 52, 3: 46, 4: 42}[count]
        colours = contrasting(rng, ground, count)
        found = []
        for (x, y), shape, colour in zip(places(rng, count, room), shapes, colours):
            size = room * rng.uniform(0.8 if easy else 0.5, 1.0)
            put(rng, canvas, shape, colour, x, y, size, easy)
            found.append((shape, colour, x, y, size))
        return canvas, several_asks(rng, found)
    count = rng.randint(1, 6)
    shape = rng.choice(list(SHAPES))
    kinds = contrasting(rng, ground, 2)
    if rng.random() < 0.5:
        kinds = kinds[:1]
    colours = [rng.choice(kinds) for _ in range(count)]
    size = {1: 60, 2: 48, 3: 42, 4: 38, 5: 34, 6: 32}[count] * rng.uniform(0.6, 1.0)
    for (x, y), colour in zip(places(rng, count, size), colours):
        put(rng, canvas, shape, colour, x, y, size * rng.uniform(0.85, 1.0), easy)
    return canvas, same_asks(rng, shape, colours)
