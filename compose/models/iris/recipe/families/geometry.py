"""Angles and lengths."""
import math

from canvas import FINE, SIDE, Canvas, inked, scaled, shade, stencil
from families.reading import inks, write
from turns import Ask
from world import CLASSES, COLOURS

KINDS = [("acute", "锐角"), ("right", "直角"), ("obtuse", "钝角")]


def angle(rng, assets):
    """Two rays; sizes are multiples of 15 degrees."""
    degrees = rng.choice([30, 45, 60, 75, 90, 90, 90, 105, 120, 135, 150])
    ground, ink = inks(rng)
    canvas = Canvas(rng, ground, plain=True)
    start = rng.choice([0, 0, rng.uniform(0, 360)])
    length = rng.uniform(34, 56)
    # One factor for both coordinates of a ray, or it would turn.
    rays = []
    for turn in (start, start + degrees):
        reach = length * rng.uniform(0.8, 1.1)
        rays.append((reach * math.cos(math.radians(turn)), -reach * math.sin(math.radians(turn))))
    xs, ys = [0, *(r[0] for r in rays)], [0, *(r[1] for r in rays)]
    spare = 12
    x = rng.uniform(spare - min(xs), max(spare - min(xs), SIDE - spare - max(xs)))
    y = rng.uniform(spare - min(ys), max(spare - min(ys), SIDE - spare - max(ys)))
    fine, drawing = stencil()
    width = int(FINE * rng.uniform(2, 4))
    for dx, dy in rays:
        drawing.line(scaled(x, y, x + dx, y + dy), fill=255, width=width)
    if degrees == 90 and rng.random() < 0.5:
        a, b = [(12 * dx / math.hypot(dx, dy), 12 * dy / math.hypot(dx, dy)) for dx, dy in rays]
        drawing.line([scaled(x + a[0], y + a[1]), scaled(x + a[0] + b[0], y + a[1] + b[1]),
                      scaled(x + b[0], y + b[1])], fill=255, width=FINE)
    elif rng.random() < 0.6:
        drawing.arc(scaled(x - 14, y - 14, x + 14, y + 14), -start - degrees, -start, fill=255,
                    width=FINE)
    canvas.paste(inked(fine, shade(rng, ink)), 0, 0, CLASSES.of("part", "angle"),
                 CLASSES.colours[ink], thin=True)
    kind, chinese = KINDS[0 if degrees < 90 else 1 if degrees == 90 else 2]
    article = "an" if kind[0] in "ao" else "a"
    return canvas, [
        Ask("angle kind", "angle",
            [("Is the angle acute, right or obtuse?", kind),
             ("What kind of angle is this?", f"It is {article} {kind} angle.")],
            [("这是什么角？", f"{chinese}。"), ("这是锐角、直角还是钝角？", chinese)],
            (kind, chinese), 2, "kind"),
        Ask("degrees", "number", [("How many degrees is the angle?", str(degrees)),
                                  ("How large is the angle?", f"About {degrees} degrees.")],
            [("这个角是多少度？", f"{degrees}度。")], (str(degrees),) * 2, 2, "degrees"),
        Ask("ink", "colour", [("What color are the lines?", ink)],
            [("线是什么颜色？", f"{COLOURS[ink][0]}。")], (ink, COLOURS[ink][0]), 1, "ink"),
    ]


def lengths(rng, assets):
    """Two or three lines of different colours."""
    count = rng.choice([2, 2, 3])
    canvas = Canvas(rng, "white", plain=True)
    colours = rng.sample([c for c in COLOURS if c not in ("white", "yellow")], count)
    while True:
        sizes = [rng.uniform(20, SIDE - 12) for _ in range(count)]
        order = sorted(sizes)
        if all(b > 1.25 * a for a, b in zip(order, order[1:])):
            break
    upright = rng.random() < 0.4
    for index, (size, colour) in enumerate(zip(sizes, colours)):
        across = SIDE * (index + 0.5) / count + rng.uniform(-6, 6)
        start = rng.uniform(6, SIDE - 6 - size)
        ends = (across, start, across, start + size) if upright else (
            start, across, start + size, across)
        fine, drawing = stencil()
        drawing.line(scaled(*ends), fill=255, width=int(FINE * rng.uniform(2.5, 6)))
        canvas.paste(inked(fine, shade(rng, colour)), 0, 0,
                     CLASSES.of("part", "line"), CLASSES.colours[colour], thin=True)
    long, short = (colours[sizes.index(f(sizes))] for f in (max, min))
    way = ("vertical", "竖直") if upright else ("horizontal", "水平")
    return canvas, [
        Ask("longest", "colour",
            [("Which line is the longest?" if count > 2 else "Which line is longer?", long),
             ("What color is the longest line?", f"It is {long}.")],
            [("哪条线最长？", f"{COLOURS[long][0]}的。")], (long, COLOURS[long][0]), 2, "long"),
        Ask("shortest", "colour",
            [("Which line is the shortest?" if count > 2 else "Which line is shorter?", short)],
            [("哪条线最短？", f"{COLOURS[short][0]}的。")], (short, COLOURS[short][0]), 1.5,
            "short"),
        Ask("lines", "number", [("How many lines are there?", str(count))],
            [("有几条线？", f"{'零一两三'[count]}条。")], (str(count),) * 2, 1, "lines"),
        Ask("way", "way", [("Are the lines horizontal or vertical?", way[0])],
            [("线是水平的还是竖直的？", f"{way[1]}的。")], way, 0.8, "way"),
    ]


def rectangle(rng, assets):
    """A rectangle with its sides' lengths written on it."""
    width, height = rng.sample(range(1, 10), 2)
    canvas = Canvas(rng, "white", plain=True)
    unit = min(72 / width, 66 / height)
    w, h = max(14, width * unit), max(14, height * unit)
    x, y = (SIDE - w - 22) * rng.uniform(0.1, 0.9) + 2, (SIDE - h - 22) * rng.uniform(0.1, 0.9) + 2
    colour = rng.choice(["red", "green", "blue", "orange", "purple", "teal", "brown", "black"])
    fine, drawing = stencil()
    drawing.rectangle(scaled(x, y, x + w, y + h), outline=255, width=FINE * 2,
                      fill=70 if rng.random() < 0.5 else None)
    canvas.paste(inked(fine, shade(rng, colour)), 0, 0,
                 CLASSES.of("shape", "rectangle"), CLASSES.colours[colour])
    font = assets.latin_font(rng, 17)
    write(rng, canvas, str(width), font, x + w / 2 - 6, y + h + 2, "black")
    write(rng, canvas, str(height), font, x + w + 4, y + h / 2 - 8, "black")
    asks = [
        Ask("width", "number", [("How wide is the rectangle?", str(width))],
            [("长方形有多宽？", str(width))], (str(width),) * 2, 1.5, "width"),
        Ask("height", "number", [("How high is the rectangle?", str(height))],
            [("长方形有多高？", str(height))], (str(height),) * 2, 1.5, "height"),
        Ask("area", "number", [("What is the area of the rectangle?",
                                f"{width} x {height} = {width * height}")],
            [("长方形的面积是多少？", f"{width}x{height}={width * height}")],
            (str(width * height),) * 2, 1, "area"),
        Ask("perimeter", "number",
            [("What is the perimeter?",
              f"{width} + {height} + {width} + {height} = {2 * (width + height)}")],
            [("周长是多少？", f"{width}+{height}+{width}+{height}={2 * (width + height)}")],
            (str(2 * (width + height)),) * 2, 1, "perimeter"),
    ]
    return canvas, asks


def draw(rng, assets):
    return rng.choices([angle, lengths, rectangle], [5, 3, 2])[0](rng, assets)
