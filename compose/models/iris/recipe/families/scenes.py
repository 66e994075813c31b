"""Two to seven things: how many, which side, what else, is there one."""
from canvas import SIDE, Canvas, distance, turned
from turns import Ask, capital, choice, joined, number, yes_no
from world import CLASSES, COLOURS


def places(rng, count, size):
    """Middles of so many things that do not touch."""
    for _ in range(200):
        spots = []
        for _ in range(60):
            spot = (rng.uniform(size / 2, SIDE - size / 2), rng.uniform(size / 2, SIDE - size / 2))
            if all(distance(spot, other) > size * 1.02 for other in spots):
                spots.append(spot)
                if len(spots) == count:
                    return spots
        size *= 0.97
    raise ValueError(f"no room for {count} things of {size} pixels")


def counted(thing, count):
    if count == 1:
        return thing.phrase
    return f"{number(count)[0]} {thing.plural}"


def counted_chinese(thing, count):
    return f"{number(count)[1]}{thing.measure}{thing.chinese}"


def count_ask(thing, count, weight=1.5):
    word, chinese = number(count)[0], number(count)[1]
    some = (f"There {'is' if count == 1 else 'are'} {word} "
            f"{thing.english if count == 1 else thing.plural}.")
    return Ask("count", "number",
               [(f"How many {thing.plural} are there?", str(count)),
                (f"How many {thing.plural} do you see?", some),
                (f"Count the {thing.plural}.", str(count))],
               [(f"有几{thing.measure}{thing.chinese}？", f"{chinese}{thing.measure}。"),
                (f"图中有多少{thing.measure}{thing.chinese}？", str(count))],
               (str(count), str(count)), weight, f"count {thing.english}")


def presence(rng, present, assets):
    """Yes and no are asked alike, and the reason lists what there is."""
    truth = rng.random() < 0.5
    asked = rng.choice(present if truth else [t for t in assets.counted if t not in present])
    shown = joined([t.phrase for t in present], " and ")
    chinese = "和".join(t.chinese for t in present)
    return yes_no("presence", rng, truth,
                  (f"Is there {asked.phrase}?", f"图中有{asked.chinese}吗？"),
                  (f"I see {shown}", f"我看到{chinese}"), "what", 1.2)


def groups(rng, assets):
    """Some of one kind, at times with some of another."""
    first, second = rng.sample(assets.counted, 2)
    easy = assets.easy
    count = rng.randint(1, 3 if easy else 6)
    more = rng.randint(1, 6 - count) if count < 6 and rng.random() < 0.45 else 0
    total = count + more
    ground = rng.choice(list(COLOURS)) if not easy and rng.random() < 0.3 else None
    canvas = Canvas(rng, ground, plain=easy, light=easy)
    size = {1: 60, 2: 50, 3: 44, 4: 40, 5: 36, 6: 34}[total] * rng.uniform(0.8, 1.0)
    kinds = [first] * count + [second] * more
    rng.shuffle(kinds)
    drawings = {first: assets.sprite(rng, first), second: assets.sprite(rng, second)}
    for kind, (x, y) in zip(kinds, places(rng, total, size)):
        drawn = turned(rng, drawings[kind], int(size * rng.uniform(0.85, 1.0)),
                       0 if easy else 10, not easy)
        canvas.paste(drawn, round(x - drawn.width / 2), round(y - drawn.height / 2),
                     CLASSES.of("thing", kind.english))
    present = [first, second] if more else [first]
    asks = [count_ask(first, count), presence(rng, present, assets)]
    if more:
        asks.append(count_ask(second, more, 1.0))
        asks.append(Ask("count all", "number", [("How many things are there?", str(total))],
                        [("一共有几个东西？", str(total))], (str(total),) * 2, 0.7, "total"))
    asks.append(Ask(
        "caption", "text",
        [("Describe the picture.", capital(joined([counted(first, count)] + (
            [counted(second, more)] if more else []), " and ")) + ".")],
        [("描述这幅图。", "和".join([counted_chinese(first, count)] + (
            [counted_chinese(second, more)] if more else [])) + "。")],
        ("", ""), 0.6, "what"))
    asks.append(choice(
        "count choice", rng, (f"How many {first.plural} are there?",
                              f"有几{first.measure}{first.chinese}？"),
        (str(count),) * 2, [(str(n),) * 2 for n in range(1, 8) if n != count],
        f"count {first.english}", 0.5))
    return canvas, asks


def pair(rng, assets):
    """Two or three different things beside or above each other."""
    upright = rng.random() < 0.35
    count = 2 if rng.random() < 0.65 else 3
    things = rng.sample(assets.counted, count)
    easy = assets.easy
    ground = rng.choice(list(COLOURS)) if not easy and rng.random() < 0.3 else None
    canvas = Canvas(rng, ground, plain=easy, light=easy)
    room = SIDE / count
    for index, thing in enumerate(things):
        size = int(room * rng.uniform(0.8, 1.0) * (1.0 if count == 2 else 1.1))
        drawn = turned(rng, assets.sprite(rng, thing), size, 0 if easy else 10, not easy)
        along = (index + 0.5) * room + rng.uniform(-0.05, 0.05) * room
        # A little beside the row, so that rows are not all alike.
        across = SIDE / 2 + rng.uniform(-0.5, 0.5) * (SIDE - size)
        x, y = (across, along) if upright else (along, across)
        canvas.paste(drawn, round(x - drawn.width / 2), round(y - drawn.height / 2),
                     CLASSES.of("thing", thing.english))
    ends = [("at the top", "上面"), ("at the bottom", "下面")] if upright else [
        ("on the left", "左边"), ("on the right", "右边")]
    asks = []
    for (side, chinese), thing in zip(ends, [things[0], things[-1]]):
        asks.append(Ask(
            "which side", "name",
            [(f"What is {side}?", f"The {thing.english}."),
             (f"Which thing is {side}?", thing.english)],
            [(f"{chinese}是什么？", f"{thing.chinese}。"), (f"{chinese}的东西是什么？", thing.chinese)],
            (thing.english, thing.chinese), 1.5, side))
    asks += relation(rng, things, upright)
    listed = joined([t.phrase for t in things], " and ")
    asks.append(Ask(
        "list", "text",
        [("What things are there?", f"There is {listed}."),
         (f"What do you see from {'top to bottom' if upright else 'left to right'}?",
          capital(listed) + ".")],
        [("图中有什么？", f"有{'、'.join(t.chinese for t in things)}。")],
        ("", ""), 1.2, "what"))
    asks.append(presence(rng, things, assets))
    return canvas, asks


def relation(rng, things, upright):
    one, two = rng.sample(things, 2)
    is_before = things.index(one) < things.index(two)
    words = [("above", "上面"), ("below", "下面")] if upright else [
        ("left", "左边"), ("right", "右边")]
    word, chinese = words[0 if is_before else 1]
    of = "" if upright else " of"
    return [Ask(
        "relation", "side",
        [(f"Is the {one.english} {words[0][0]} or {words[1][0]}{of} the "
          f"{two.english}?", word),
         (f"Where is the {one.english}, seen from the {two.english}?",
          f"It is {word} the {two.english}." if upright else f"It is to the {word}.")],
        [(f"{one.chinese}在{two.chinese}的哪一边？", f"在{chinese}。"),
         (f"{one.chinese}在{two.chinese}的{words[0][1]}还是{words[1][1]}？", chinese)],
        (word, chinese), 1.5, "order")]


def draw(rng, assets):
    return groups(rng, assets) if rng.random() < 0.55 else pair(rng, assets)
