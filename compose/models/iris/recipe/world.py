"""What the pictures may show, under which names, and what of it is kept out of training."""
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent
VARIATION = "\ufe0f"

IRREGULAR = {
    "mouse": "mice", "fish": "fish", "octopus": "octopuses", "die": "dice", "cactus": "cacti",
}


def is_held_out(text, share=10):
    """One name or word in ten, by its spelling alone, so that every script agrees."""
    return int(hashlib.sha256(f"iris/{text}".encode()).hexdigest(), 16) % share == 0


def plural(name):
    if name in IRREGULAR:
        return IRREGULAR[name]
    if re.search("(s|x|ch|sh)$", name):
        return name + "es"
    if re.search("[^aeiou]y$", name):
        return name[:-1] + "ies"
    if name == "tomato":
        return name + "es"
    return name + "s"


@dataclass(frozen=True)
class Thing:
    """Something with a name. `number` is "one", "mass" or "many"."""
    emoji: str
    english: str
    chinese: str
    category: str
    number: str
    measure: str

    @property
    def is_counted(self):
        return self.number == "one"

    @property
    def phrase(self):
        """With the article that it takes."""
        if not self.is_counted:
            return self.english
        article = "an" if self.english[0] in "aeiou" and self.english != "unicorn" else "a"
        return f"{article} {self.english}"

    @property
    def plural(self):
        return plural(self.english) if self.is_counted else self.english

    @property
    def file(self):
        return "-".join(f"{ord(c):x}" for c in self.emoji)


def _read_things():
    things, categories = [], {}
    for line in (HERE / "things.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        first, rest = line.split(" ", 1)
        if first.isascii():
            chinese, measure = rest.split(" ")
            category = first
            categories[category] = chinese
            continue
        english, chinese = rest.rsplit(" ", 1)
        number = {"~": "mass", "*": "many"}.get(english[-1], "one")
        things.append(Thing(first.replace(VARIATION, ""), english.rstrip("~*"), chinese, category,
                            number, measure))
    return things, categories


THINGS, CATEGORIES = _read_things()
TRAINED = [t for t in THINGS if not is_held_out(t.english)]
HELD_OUT = [t for t in THINGS if is_held_out(t.english)]

COLOURS = {
    "red": ("红色", (214, 40, 40)), "green": ("绿色", (44, 160, 60)),
    "blue": ("蓝色", (40, 80, 210)), "yellow": ("黄色", (246, 216, 40)),
    "orange": ("橙色", (245, 138, 24)), "purple": ("紫色", (128, 52, 168)),
    "pink": ("粉色", (248, 150, 190)), "brown": ("棕色", (128, 78, 36)),
    "black": ("黑色", (18, 18, 18)), "white": ("白色", (250, 250, 250)),
    "gray": ("灰色", (130, 130, 130)), "teal": ("青色", (0, 150, 150)),
}
SHAPES = {
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "rectangle": "长方形",
    "star": "五角星", "heart": "心形", "diamond": "菱形", "pentagon": "五边形",
    "hexagon": "六边形", "cross": "十字", "oval": "椭圆", "arrow": "箭头",
}
GARMENTS = [
    ("t-shirt", "T恤"), ("trousers", "裤子"), ("pullover", "套头衫"), ("dress", "连衣裙"),
    ("coat", "外套"), ("sandal", "凉鞋"), ("shirt", "衬衫"), ("sneaker", "运动鞋"),
    ("bag", "包"), ("ankle boot", "短靴"),
]
HANZI = "一二三四五六七八九十人大小上下左右中山水火木土日月口手目马牛羊鱼鸟花车门王天"
PARTS = ["bar", "line", "slice", "angle", "text"]


class Classes:
    """The numbers of what a patch can show: 0 for the ground, -1 for what is not said."""

    def __init__(self):
        self.rows = [("background", [], 0.3)]
        self.number = {}
        for thing in TRAINED:
            self._add(("thing", thing.english), [thing.english, thing.chinese], 1.0)
        for shape, chinese in SHAPES.items():
            self._add(("shape", shape), [shape, chinese], 2.5)
        for digit in "0123456789":
            self._add(("sign", digit), [digit], 2.5)
        for letter in "abcdefghijklmnopqrstuvwxyz":
            self._add(("sign", letter), [letter, letter.upper()], 1.5)
        for character in HANZI:
            self._add(("sign", character), [character], 1.5)
        for english, chinese in GARMENTS:
            self._add(("garment", english), [english, chinese], 1.0)
        for part in PARTS:
            self._add(("part", part), [], 1.0)
        self.colours = {name: number for number, name in enumerate(COLOURS)}

    def _add(self, key, words, weight):
        self.number[key] = len(self.rows)
        self.rows.append((" ".join(key), words, weight))

    def of(self, kind, name):
        """-1, which nothing is learnt from, for what has no class."""
        return self.number.get((kind, name), -1)

    @cached_property
    def table(self):
        """The file that the trainer reads beside the meta file."""
        return {
            "format": 1, "patch_size": 14,
            "groups": {
                "what": {"weight": 1.0, "classes": [
                    {"name": n, "words": w, "weight": x} for n, w, x in self.rows]},
                "colour": {"weight": 0.5, "classes": [
                    {"name": name, "words": [name, chinese], "weight": 1.0}
                    for name, (chinese, _) in COLOURS.items()]},
            },
        }


CLASSES = Classes()
