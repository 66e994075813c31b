"""Turns without a picture: what words mean, small sums, who the model is."""
from families.naming import KINDS
from turns import Ask, yes_no
from world import CATEGORIES, COLOURS, SHAPES, TRAINED

SIDES = {"triangle": 3, "square": 4, "rectangle": 4, "pentagon": 5, "hexagon": 6}
SAYINGS = [
    (["Hello!", "Hi!", "Good morning!"], "Hello! Show me a picture.",
     ["你好！", "早上好！"], "你好！请给我看一幅图。"),
    (["Who are you?", "What is your name?"], "I am Iris, a small model that looks at pictures.",
     ["你是谁？", "你叫什么名字？"], "我是Iris，一个看图的小模型。"),
    (["What can you do?"], "I can name things, colors and shapes, count, and read short texts.",
     ["你会做什么？"], "我会认东西、颜色和形状，会数数，会读短文字。"),
    (["Thank you!", "Thanks!"], "You are welcome.", ["谢谢！"], "不客气。"),
    (["Are you a person?"], "No, I am a small model.", ["你是人吗？"], "不是，我是一个小模型。"),
    (["What do you see?", "What is in the picture?"], "There is no picture.",
     ["你看到了什么？", "图中是什么？"], "没有图。"),
    (["Goodbye!"], "Goodbye!", ["再见！"], "再见！"),
]


def of_thing(rng, thing):
    near = [t for t in TRAINED if t.category == thing.category]
    other = rng.choice(near if rng.random() < 0.5 else TRAINED)
    category = CATEGORIES[thing.category]
    is_same = other.category == thing.category
    return [
        Ask("to chinese", "text", [(f"What is “{thing.english}” in Chinese?", thing.chinese)],
            [(f"“{thing.english}”用中文怎么说？", thing.chinese)], ("", "")),
        Ask("to english", "text", [(f"What is “{thing.chinese}” in English?", thing.english)],
            [(f"“{thing.chinese}”用英文怎么说？", thing.english)], ("", "")),
        Ask("category", "category",
            [(f"What kind of thing is {thing.phrase}?", f"It is {KINDS[thing.category]}.")],
            [(f"{thing.chinese}是哪一类东西？", category)], (thing.category, category)),
        yes_no("same kind", rng, is_same,
               (f"Are {thing.english} and {other.english} of one kind?",
                f"{thing.chinese}和{other.chinese}是一类吗？"),
               (f"{thing.english} is {KINDS[thing.category]}, {other.english} is "
                f"{KINDS[other.category]}", f"{thing.chinese}是{category}，{other.chinese}是"
                f"{CATEGORIES[other.category]}")),
    ]


def of_numbers(rng):
    a, b = rng.randint(0, 9), rng.randint(0, 9)
    low, high = sorted((a, b))
    shape, sides = rng.choice(list(SIDES.items()))
    colour = rng.choice(list(COLOURS))
    return [
        Ask("sum", "number", [(f"What is {a} + {b}?", str(a + b))],
            [(f"{a}加{b}等于几？", str(a + b))], (str(a + b),) * 2),
        Ask("difference", "number", [(f"What is {high} - {low}?", str(high - low))],
            [(f"{high}减{low}等于几？", str(high - low))], (str(high - low),) * 2),
        Ask("sides", "number", [(f"How many sides does a {shape} have?", str(sides))],
            [(f"{SHAPES[shape]}有几条边？", f"{'零一二三四五六'[sides]}条。")], (str(sides),) * 2),
        Ask("colour name", "text",
            [(f"What is “{colour}” in Chinese?", COLOURS[colour][0])],
            [(f"“{COLOURS[colour][0]}”用英文怎么说？", colour)], ("", "")),
    ]


def draw(rng, assets):
    """No canvas."""
    said = [Ask("talk", "text", [(q, answer) for q in english], [(q, zh) for q in chinese],
                ("", "")) for english, answer, chinese, zh in rng.sample(SAYINGS, 1)]
    return None, of_thing(rng, rng.choice(assets.things)) + of_numbers(rng) + said
