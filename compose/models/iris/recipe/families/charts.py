"""Bar, line and pie charts, with letters or colours as names and few, large signs."""
from canvas import FINE, SIDE, Canvas, inked, scaled, shade, stencil, tint
from families.reading import write
from turns import Ask, number, yes_no
from world import CLASSES, COLOURS

LETTERS = "ABCDE"
INKS = ["red", "green", "blue", "orange", "purple", "pink", "brown", "teal", "yellow", "gray"]


def frame(rng, assets, canvas, top):
    """Axes, and three numbers on the upright one; the value's place in pixels."""
    left, bottom, upper = 20, SIDE - 18, 8
    grey = tint(rng, (90, 90, 90), 30)
    if rng.random() < 0.7:
        grid, drawing = stencil()
        for value in (top // 2, top):
            y = bottom - (bottom - upper) * value / top
            drawing.line(scaled(left, y, SIDE - 4, y), fill=255, width=FINE)
        lines_ = inked(grid, (190, 190, 190))
        canvas.image.paste(lines_, (0, 0), lines_)
    fine, drawing = stencil()
    drawing.line(scaled(left, upper - 3, left, bottom), fill=255, width=FINE)
    drawing.line(scaled(left, bottom, SIDE - 4, bottom), fill=255, width=FINE)
    axes = inked(fine, grey)
    canvas.image.paste(axes, (0, 0), axes)
    font = assets.latin_font(rng, 11)
    for value in (0, top // 2, top):
        y = bottom - (bottom - upper) * value / top
        write(rng, canvas, str(value), font, 2 if value > 9 else 8, y - 7, "black", rgb=grey)
    return lambda value: bottom - (bottom - upper) * value / top


def named(names, index):
    """A bar's name in both languages: its letter or its colour."""
    if names is None:
        return LETTERS[index], LETTERS[index]
    return names[index], COLOURS[names[index]][0]


def value_asks(rng, values, names, part, chinese_part, unit=""):
    """Questions about heights that hold for bars and points alike."""
    asks = []
    order = sorted(range(len(values)), key=lambda i: values[i])
    low, high = named(names, order[0]), named(names, order[-1])
    kind = "colour" if names else "mark"
    if values[order[-1]] > values[order[-2]]:
        asks.append(Ask("highest", kind,
                        [(f"Which {part} is the highest?", high[0]),
                         (f"Which {part} has the largest value?", f"{high[0]}.")],
                        [(f"哪个{chinese_part}最高？", f"{high[1]}。")], high, 2, "high"))
    if values[order[0]] < values[order[1]]:
        asks.append(Ask("lowest", kind, [(f"Which {part} is the lowest?", low[0])],
                        [(f"哪个{chinese_part}最低？", f"{low[1]}。")], low, 1.5, "low"))
    index = rng.randrange(len(values))
    name, value = named(names, index), str(values[index])
    asks.append(Ask("value", "number",
                    [(f"What is the value of {name[0]}?", value),
                     (f"How high is {name[0]}?", f"It is {value}.")],
                    [(f"{name[1]}的值是多少？", value)], (value, value), 1.8, "value"))
    asks.append(Ask("parts", "number", [(f"How many {part}s are there?", str(len(values)))],
                    [(f"有几个{chinese_part}？", f"{number(len(values))[1]}个。")],
                    (str(len(values)),) * 2, 0.8, "parts"))
    one, two = rng.sample(range(len(values)), 2)
    if values[one] != values[two]:
        truth = values[one] > values[two]
        names_ = named(names, one), named(names, two)
        asks.append(yes_no(
            "compare", rng, truth,
            (f"Is {names_[0][0]} higher than {names_[1][0]}?",
             f"{names_[0][1]}比{names_[1][1]}高吗？"),
            (f"{names_[0][0]} is {values[one]} and {names_[1][0]} is {values[two]}",
             f"{names_[0][1]}是{values[one]}，{names_[1][1]}是{values[two]}"), "compare", 1))
    return asks


def chart_kind(name, chinese):
    return Ask("chart kind", "chart",
               [("What kind of chart is this?", f"It is a {name} chart."),
                ("Which type of chart is shown?", f"{name} chart")],
               [("这是什么图表？", f"这是{chinese}。")], (name, chinese), 0.6, "kind")


def values_up_to(rng, count, top):
    """Whole values, at least a tenth of the axis apart from each other half of the time."""
    if rng.random() < 0.7 and count <= top:
        return rng.sample(range(1, top + 1), count)
    return [rng.randint(1, top) for _ in range(count)]


def bars(rng, assets):
    count = rng.randint(2, 5)
    top = rng.choice([6, 8, 10])
    values = values_up_to(rng, count, top)
    by_colour = rng.random() < 0.5
    colours = rng.sample(INKS, count)
    if not by_colour and rng.random() < 0.6:
        colours = [colours[0]] * count
    canvas = Canvas(rng, "white", plain=True)
    at = frame(rng, assets, canvas, top)
    room = (SIDE - 26) / count
    font = assets.latin_font(rng, 13)
    shown = rng.random() < 0.4
    for index, value in enumerate(values):
        fine, drawing = stencil()
        left = 22 + index * room + room * 0.14
        right = left + room * rng.uniform(0.66, 0.76)
        drawing.rectangle(scaled(left, at(value), right, at(0)), fill=255)
        canvas.paste(inked(fine, shade(rng, colours[index])), 0, 0, CLASSES.of("part", "bar"),
                     CLASSES.colours[colours[index]])
        if not by_colour:
            write(rng, canvas, LETTERS[index], font, (left + right) / 2 - 6, SIDE - 16, "black")
        if shown:
            write(rng, canvas, str(value), font, (left + right) / 2 - (8 if value > 9 else 5),
                  max(0, at(value) - 15) if at(value) > 18 else at(value) + 2, "black")
    asks = value_asks(rng, values, colours if by_colour else None, "bar", "条形")
    return canvas, asks + [chart_kind("bar", "条形图")]


def lines(rng, assets):
    count = rng.randint(3, 5)
    top = rng.choice([6, 8, 10])
    if rng.random() < 0.5:
        values = sorted(rng.sample(range(top + 1), count))
        if rng.random() < 0.5:
            values.reverse()
    else:
        values = values_up_to(rng, count, top)
    colour = rng.choice(INKS[:8])
    canvas = Canvas(rng, "white", plain=True)
    at = frame(rng, assets, canvas, top)
    room = (SIDE - 32) / (count - 1)
    points = [(26 + index * room, at(value)) for index, value in enumerate(values)]
    fine, drawing = stencil()
    drawing.line([scaled(*p) for p in points], fill=255, width=int(FINE * rng.uniform(1.5, 3)))
    for x, y in points:
        drawing.ellipse(scaled(x - 3, y - 3, x + 3, y + 3), fill=255)
    canvas.paste(inked(fine, shade(rng, colour)), 0, 0, CLASSES.of("part", "line"),
                 CLASSES.colours[colour], thin=True)
    font = assets.latin_font(rng, 12)
    for index, (x, _) in enumerate(points):
        write(rng, canvas, LETTERS[index], font, x - 6, SIDE - 16, "black")
    asks = value_asks(rng, values, None, "point", "点")
    asks.append(Ask("ink", "colour", [("What color is the line?", colour)],
                    [("线是什么颜色？", f"{COLOURS[colour][0]}。")], (colour, COLOURS[colour][0]),
                    0.8, "ink"))
    rises = all(a < b for a, b in zip(values, values[1:]))
    falls = all(a > b for a, b in zip(values, values[1:]))
    if rises or falls:
        trend = ("rises", "上升") if rises else ("falls", "下降")
        asks.append(Ask("trend", "trend", [("Does the line rise or fall?", f"It {trend[0]}."),
                                           ("What is the trend?", f"It {trend[0]}.")],
                        [("线是上升还是下降？", f"{trend[1]}。")], trend, 2, "trend"))
    return canvas, asks + [chart_kind("line", "折线图")]


def pie(rng, assets):
    count = rng.randint(2, 5)
    while True:
        shares = [rng.randint(1, 10) for _ in range(count)]
        order = sorted(shares)
        if order[-1] >= 1.3 * order[-2] and min(shares) >= 0.06 * sum(shares):
            break
    colours = rng.sample(INKS, count)
    canvas = Canvas(rng, "white", plain=True)
    radius = rng.uniform(36, 52)
    cx, cy = (rng.uniform(radius + 2, SIDE - radius - 2) for _ in range(2))
    start = rng.uniform(0, 360)
    hole = rng.random() < 0.25
    for share, colour in zip(shares, colours):
        fine, drawing = stencil()
        end = start + 360 * share / sum(shares)
        drawing.pieslice(scaled(cx - radius, cy - radius, cx + radius, cy + radius), start, end,
                         fill=255)
        if hole:
            r = radius * 0.45
            drawing.ellipse(scaled(cx - r, cy - r, cx + r, cy + r), fill=0)
        canvas.paste(inked(fine, shade(rng, colour)), 0, 0,
                     CLASSES.of("part", "slice"), CLASSES.colours[colour])
        start = end
    big = colours[shares.index(max(shares))]
    small_count = shares.count(min(shares))
    asks = [
        Ask("largest slice", "colour", [("Which slice is the largest?", big),
                                        ("What color is the largest part?", f"It is {big}.")],
            [("哪一块最大？", f"{COLOURS[big][0]}。")], (big, COLOURS[big][0]), 2, "big"),
        Ask("parts", "number", [("How many slices are there?", str(count))],
            [("有几块？", f"{number(count)[1]}块。")], (str(count),) * 2, 1.5, "parts"),
        chart_kind("pie", "饼图"),
    ]
    if small_count == 1:
        small = colours[shares.index(min(shares))]
        asks.append(Ask("smallest slice", "colour", [("Which slice is the smallest?", small)],
                        [("哪一块最小？", f"{COLOURS[small][0]}。")], (small, COLOURS[small][0]),
                        1.2, "small"))
    is_half = 2 * max(shares) > sum(shares)
    if abs(2 * max(shares) / sum(shares) - 1) > 0.12:
        asks.append(yes_no("half", rng, is_half,
                           (f"Is {big} more than half?", f"{COLOURS[big][0]}超过一半吗？"),
                           (f"{big} is {'more' if is_half else 'less'} than half",
                            f"{COLOURS[big][0]}{'超过' if is_half else '不到'}一半"), "half", 0.8))
    return canvas, asks


def draw(rng, assets):
    return rng.choices([bars, lines, pie], [5, 3, 2.5])[0](rng, assets)
