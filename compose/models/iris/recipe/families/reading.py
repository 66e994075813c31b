"""Written signs: digits, words, hanzi."""
from PIL import Image, ImageDraw

from canvas import SIDE, Canvas, shade
from turns import Ask, yes_no
from world import CLASSES, COLOURS, HANZI


def write(rng, canvas, text, font, x, y, colour, turn=0.0, rgb=None, on_line=False):
    """Writes a line, its upper left corner at (x, y), or its beginning on a line at y; each sign
    gets the box that it takes.

    The ink of the patches of a sign is the sign's class where enough of its box is in them.
    """
    left, top, right, bottom = font.getbbox(text)
    width, height = right - left + 4, bottom - top + 4
    if on_line:
        y += font.getbbox(text, anchor="ls")[1] - 2
    ink = Image.new("L", (width, height))
    ImageDraw.Draw(ink).text((2 - left, 2 - top), text, font=font, fill=255)
    drawn = Image.new("RGBA", (width, height), rgb or shade(rng, colour))
    drawn.putalpha(ink)
    if turn:
        drawn = drawn.rotate(turn, Image.BICUBIC, expand=True)
    canvas.image.paste(drawn, (round(x), round(y)), drawn)
    tone = CLASSES.colours.get(colour, -1)
    start = x + 2
    for index, sign in enumerate(text):
        end = x + 2 + font.getlength(text[:index + 1])
        if sign != " ":
            box = font.getbbox(sign)
            canvas.box(start, y + 2 + box[1] - top, end, y + 2 + box[3] - top,
                       CLASSES.of("sign", sign.lower()), tone)
        start = end
    return drawn.size


def inks(rng, easy=False):
    """A ground and an ink that can be told apart; of easy ones most are black on white."""
    if easy and rng.random() < 0.7:
        return "white", "black"
    dark = ["red", "blue", "green", "purple", "brown", "black", "teal"]
    light = ["white", "yellow", "pink", "orange"]
    ground, ink = rng.choice(dark), rng.choice(light)
    if rng.random() < 0.25 or (ground, ink) in [("red", "pink"), ("red", "orange"),
                                                ("brown", "orange")]:
        ground, ink = "black", "white"
    return (ground, ink) if rng.random() < 0.35 else (ink, ground)


def fitted(rng, font_of, text, largest, least=13, most=SIDE - 10):
    """The font at a random size at which a line fits."""
    low = font_of(20).getlength(text) / 20
    limit = min(largest, most / max(low, 1e-3))
    size = int(rng.uniform(max(least, 0.55 * limit), max(least, limit)))
    return font_of(size)


def place(rng, canvas, text, font, ink, turn):
    left, top, right, bottom = font.getbbox(text)
    x = rng.uniform(2, max(2, SIDE - (right - left) - 6))
    y = rng.uniform(2, max(2, SIDE - (bottom - top) - 6))
    write(rng, canvas, text, font, x, y, ink, turn)


def one_font(rng, assets, paths):
    path = rng.choice(paths)
    return lambda size: assets.font(path, size)


def colour_asks(ground, ink):
    chinese, behind = COLOURS[ink][0], COLOURS[ground][0]
    return [
        Ask("ink", "colour", [("What color is the text?", ink)],
            [("文字是什么颜色？", f"{chinese}。")], (ink, chinese), 0.6, "ink"),
        Ask("ground", "colour", [("What color is the background?",
                                  f"The background is {ground}.")],
            [("背景是什么颜色？", f"背景是{behind}。")], (ground, behind), 0.5, "ground"),
    ]


def digits(rng, assets):
    easy = assets.easy
    length = rng.choices([1, 2, 3, 4, 5], [4, 2, 0, 0, 0] if easy else [4, 3, 2, 1, 0.6])[0]
    text = "".join(rng.choice("0123456789") for _ in range(length))
    ground, ink = inks(rng, assets.easy)
    canvas = Canvas(rng, ground, plain=easy or rng.random() < 0.6)
    font = fitted(rng, one_font(rng, assets, assets.latin), text, 90, 40 if easy else 13)
    place(rng, canvas, text, font, ink, 0 if easy else rng.choice([0, 0, rng.uniform(-6, 6)]))
    asks = [Ask("digits", "text",
                [("What number is this?", text), ("Read the number.", text),
                 ("What is written here?", text), ("Which number do you see?", f"It is {text}.")],
                [("这是什么数字？", text), ("图中的数字是多少？", f"是{text}。")],
                (text, text), 4, "text")]
    if length > 1:
        asks.append(Ask("first digit", "number", [("What is the first digit?", text[0])],
                        [("第一个数字是什么？", text[0])], (text[0],) * 2, 0.7, "first"))
        asks.append(Ask("last digit", "number", [("What is the last digit?", text[-1])],
                        [("最后一个数字是什么？", text[-1])], (text[-1],) * 2, 0.7, "last"))
        asks.append(Ask("length", "number", [("How many digits are there?", str(length))],
                        [("有几位数字？", str(length))], (str(length),) * 2, 0.5, "length"))
    is_even = int(text[-1]) % 2 == 0
    asks.append(yes_no("parity", rng, is_even, ("Is the number even?", "这个数是偶数吗？"),
                       (f"it is {text}", f"这是{text}"), "text", 0.5))
    return canvas, asks + colour_asks(ground, ink)


def word(rng, assets):
    text = rng.choice(assets.words)
    shown = rng.choices([text, text.upper(), text.capitalize()], [2, 1, 1])[0]
    ground, ink = inks(rng, assets.easy)
    canvas = Canvas(rng, ground, plain=rng.random() < 0.6)
    font = fitted(rng, one_font(rng, assets, assets.latin), shown, 44)
    place(rng, canvas, shown, font, ink, rng.choice([0, 0, rng.uniform(-5, 5)]))
    spelt = " ".join(shown)
    asks = [
        Ask("word", "text",
            [("What word is this?", shown), ("Read the text.", shown),
             ("What does it say?", f"It says {shown}.")],
            [("图中写的是什么？", shown), ("读出文字。", shown)], (shown,) * 2, 3, "text"),
        Ask("spell", "text", [("Spell the word.", spelt), ("Read the letters one by one.", spelt)],
            [("逐个读出字母。", spelt)], (spelt,) * 2, 1.5, "spell"),
        Ask("first letter", "text", [("What is the first letter?", shown[0])],
            [("第一个字母是什么？", shown[0])], (shown[0],) * 2, 0.8, "first"),
    ]
    return canvas, asks + colour_asks(ground, ink)


def hanzi(rng, assets):
    length = rng.choices([1, 2, 3, 4], [5, 3, 0, 0] if assets.easy else [5, 3, 1, 0.6])[0]
    text = "".join(rng.choice(HANZI) for _ in range(length))
    ground, ink = inks(rng, assets.easy)
    canvas = Canvas(rng, ground, plain=rng.random() < 0.6)
    size = rng.randint(40 if assets.easy else 22, min(84, (SIDE - 10) // length))
    font = assets.chinese_font(rng, size)
    place(rng, canvas, text, font, ink, rng.choice([0, 0, rng.uniform(-5, 5)]))
    kind = "characters" if length > 1 else "character"
    asks = [
        Ask("hanzi", "text", [(f"Which Chinese {kind} do you see?", text),
                              ("Read the text.", text)],
            [("这是什么字？", text), ("图中写的是什么？", f"“{text}”。"), ("读出文字。", text)],
            (text,) * 2, 4, "text"),
        Ask("length", "number", [("How many characters are there?", str(length))],
            [("有几个字？", f"{length}个。")], (str(length),) * 2, 0.4, "length"),
    ]
    return canvas, asks + colour_asks(ground, ink)


def draw(rng, assets):
    return rng.choices([digits, word, hanzi], [6, 2, 2])[0](rng, assets)
