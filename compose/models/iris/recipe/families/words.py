"""Pictures told in words, for what is to be done with what is seen: compare, count, choose."""
from families.naming import is_it, it_is
from families.scenes import counted, counted_chinese, count_ask, presence, relation
from turns import Ask, capital, choice, joined


def told(ask, english, chinese):
    """The same questions behind what the picture would have shown."""
    ask.english = [(f"{english} {q}", a) for q, a in ask.english]
    ask.chinese = [(f"{chinese}{q}", a) for q, a in ask.chinese]
    return ask


def one(rng, assets):
    thing = rng.choice(assets.things)
    text = capital(it_is(thing)) + "."
    return [told(ask, text, f"这是{thing.chinese}。") for ask in [
        is_it(rng, thing, assets.things),
        choice("which", rng, ("Which of these is shown?", "图中是哪一个？"),
               (thing.english, thing.chinese),
               [(t.english, t.chinese) for t in assets.things if t is not thing])]]


def several(rng, assets):
    first, second = rng.sample(assets.counted, 2)
    counts = [rng.randint(1, 4), rng.randint(1, 2)]
    shown = [first] * counts[0] + [second] * counts[1]
    rng.shuffle(shown)
    text = capital(", ".join(t.english for t in shown)) + "."
    chinese = "、".join(t.chinese for t in shown) + "。"
    return [told(ask, text, chinese) for ask in [
        count_ask(first, counts[0]), count_ask(second, counts[1]),
        presence(rng, [first, second], assets),
        Ask("caption", "text",
            [("Describe the picture.", capital(joined(
                [counted(first, counts[0]), counted(second, counts[1])], " and ")) + ".")],
            [("描述这幅图。", "和".join([
                counted_chinese(first, counts[0]), counted_chinese(second, counts[1])]) + "。")],
            ("", ""))]]


def row(rng, assets):
    things = rng.sample(assets.counted, rng.choice([2, 3]))
    upright = rng.random() < 0.35
    order = ("From top to bottom", "从上到下") if upright else ("From left to right", "从左到右")
    text = f"{order[0]}: {', '.join(t.english for t in things)}."
    chinese = f"{order[1]}：{'、'.join(t.chinese for t in things)}。"
    asks = relation(rng, things, upright) + [presence(rng, things, assets)]
    ends = [("at the top", "上面"), ("at the bottom", "下面")] if upright else [
        ("on the left", "左边"), ("on the right", "右边")]
    for (side, there), thing in zip(ends, [things[0], things[-1]]):
        asks.append(Ask("which side", "name", [(f"Which thing is {side}?", thing.english)],
                        [(f"{there}的东西是什么？", thing.chinese)],
                        (thing.english, thing.chinese)))
    return [told(ask, text, chinese) for ask in asks]


def draw(rng, assets):
    """No canvas."""
    return None, rng.choice([one, one, several, row])(rng, assets)
