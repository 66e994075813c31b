"""Questions and answers about a picture, in two languages and several wordings."""
from dataclasses import dataclass, field

ENGLISH_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CHINESE_NUMBERS = "零一二三四五六七八九"

NOT_SURE = ("I am not sure.", "我不确定。")


def capital(text):
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Turn:
    task: str
    #: What the answer is judged by: name, category, colour, shape, side, place, number, yes,
    #: letter, text (the whole answer), unsure.
    kind: str
    language: str
    question: str
    answer: str
    #: What the answer must hold, in the answer's language.
    gold: str


@dataclass
class Ask:
    """One thing to ask: wordings as (question, answer) in both languages."""
    task: str
    kind: str
    english: list
    chinese: list
    gold: tuple
    weight: float = 1.0
    #: Asks with the same fact are never in one conversation: one would give the other away.
    fact: str = field(default="")

    def turn(self, rng, language):
        wordings = self.english if language == "en" else self.chinese
        question, answer = rng.choice(wordings)
        return Turn(self.task, self.kind, language, question, answer,
                    self.gold[language == "zh"])


def yes_no(task, rng, truth, question, because, fact="", weight=1.0):
    """Yes or no alone when that is asked for, and what is there first when it is not.

    question, because: (English, Chinese); the reason is a clause, such as "it is a dog".
    """
    word = ("Yes", "是") if truth else ("No", "不是")
    so = ("so yes", "所以是") if truth else ("so no", "所以不是")
    return Ask(
        task, "yes",
        [(f"{question[0]} Answer yes or no.", f"{word[0]}"),
         (question[0], f"{capital(because[0])}, {so[0]}.")],
        [(f"{question[1]}请回答是或不是。", word[1]),
         (question[1], f"{because[1]}，{so[1]}。")],
        ("yes", "是") if truth else ("no", "不是"), weight, fact)


def choice(task, rng, question, right, wrong, fact="", weight=1.0):
    """Four options, of which one is right; texts are (English, Chinese)."""
    options = [right, *rng.sample(wrong, 3)]
    rng.shuffle(options)
    letter = "ABCD"[options.index(right)]
    lists = ["\n".join(f"{mark}. {option[n]}" for mark, option in zip("ABCD", options))
             for n in (0, 1)]
    return Ask(
        task, "letter",
        [(f"{question[0]}\n{lists[0]}\nAnswer with the letter.", letter),
         (f"{question[0]}\n{lists[0]}", f"{capital(right[0])}: {letter}")],
        [(f"{question[1]}\n{lists[1]}\n请回答字母。", letter),
         (f"{question[1]}\n{lists[1]}", f"{right[1]}：{letter}")],
        (letter, letter), weight, fact)


def number(count):
    return (ENGLISH_NUMBERS[count], CHINESE_NUMBERS[count] if count != 2 else "两")


def pick(rng, asks, count, chinese=0.3):
    """Some of the asks, by weight, as turns in a random order.

    Asks of one fact follow each other only where there are too few facts: an earlier answer would
    give the later one away.
    """
    left, again, turns = list(asks), [], []
    while (left or again) and len(turns) < count:
        if not left:
            left, again = again, []
        ask = rng.choices(left, [a.weight for a in left])[0]
        turns.append(ask.turn(rng, "zh" if rng.random() < chinese else "en"))
        rest = [a for a in left if a is not ask]
        again += [a for a in rest if a.fact and a.fact == ask.fact]
        left = [a for a in rest if not a.fact or a.fact != ask.fact]
    return turns


def joined(parts, last):
    parts = list(parts)
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + last + parts[-1]
