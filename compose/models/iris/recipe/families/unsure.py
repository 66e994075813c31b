"""Pictures of what the model does not know: it shall say so, and still see what it can."""
from canvas import SIDE, Canvas, turned
from families.naming import ground_asks
from turns import NOT_SURE, Ask
from world import COLOURS

QUESTIONS = ["What is this?", "What do you see?", "Name the object.", "What is in the picture?",
             "Describe the picture.", "What kind of thing is it?"]
QUESTIONS_CHINESE = ["这是什么？", "图中是什么？", "你看到了什么？", "描述这幅图。"]


def unsure_asks():
    """Two in each language at most, since a picture has a few turns."""
    halves = [(QUESTIONS[::2], QUESTIONS_CHINESE[::2]), (QUESTIONS[1::2], QUESTIONS_CHINESE[1::2])]
    return [Ask("unsure", "unsure", [(q, NOT_SURE[0]) for q in english],
                [(q, NOT_SURE[1]) for q in chinese], ("not sure", "不确定"), 2)
            for english, chinese in halves]


def draw(rng, assets):
    """Emoji that are no things of the world, now and then nothing but a ground."""
    ground = rng.choice(list(COLOURS)) if rng.random() < 0.6 else None
    canvas = Canvas(rng, ground)
    if rng.random() < 0.85:
        sprite = assets.sprites.read(rng.choice(assets.sprites.others))
        size = int(SIDE * rng.triangular(0.4, 0.95, 0.7))
        drawn = turned(rng, sprite, size, 12)
        canvas.paste(drawn, rng.randint(-4, max(-4, SIDE - drawn.width + 4)),
                     rng.randint(-4, max(-4, SIDE - drawn.height + 4)), -1)
        return canvas, unsure_asks() + ground_asks(ground)
    nothing = Ask("unsure", "unsure", [("What is this?", NOT_SURE[0]),
                                       ("Name the object.", NOT_SURE[0])],
                  [("这是什么？", NOT_SURE[1])], ("not sure", "不确定"), 2)
    return canvas, [nothing] + ground_asks(ground)
