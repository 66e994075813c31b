"""What an answer says: the terms it holds, its number, its letter, yes or no."""
import re

ENGLISH_NUMBERS = {w: n for n, w in enumerate(
    "zero one two three four five six seven eight nine ten".split())}
CHINESE_NUMBERS = {"零": 0, "一": 1, "二": 2, "两": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7,
                   "八": 8, "九": 9, "十": 10}


def normal(text):
    return re.sub(r"[\s.。!！“”\"']+", " ", text).strip()


def terms_in(answer, terms, language):
    """The terms of a list that an answer holds, longer ones first, none within another."""
    found, rest = set(), answer
    for term in sorted(terms, key=len, reverse=True):
        pattern = re.escape(term)
        if language == "en":
            # A single capital letter is a mark: the article "a" is none.
            flags = 0 if len(term) == 1 else re.IGNORECASE
            pattern = rf"(?<![A-Za-z]){pattern}(?![A-Za-z])"
        else:
            flags = 0
        if re.search(pattern, rest, flags):
            found.add(term)
            rest = re.sub(pattern, "|", rest, flags=flags)
    return found


def number_in(answer):
    """The last number: an answer may show its sum first."""
    found = re.findall(r"\d+", answer)
    if found:
        return int(found[-1])
    for word in reversed(re.findall(r"[a-z]+", answer.lower())):
        if word in ENGLISH_NUMBERS:
            return ENGLISH_NUMBERS[word]
    for sign in reversed(answer):
        if sign in CHINESE_NUMBERS:
            return CHINESE_NUMBERS[sign]
    return None


def yes_or_no(answer, language):
    """By the last clause that says one of them: "It is a cat, so no."."""
    clauses = [c for c in re.split("[,，.。:：]", answer) if c.strip()]
    for clause in reversed(clauses):
        if language == "zh":
            if "不是" in clause:
                return "不是"
            if "是" in clause:
                return "是"
        else:
            words = set(re.findall("[a-z]+", clause.lower()))
            if words & {"yes", "no"}:
                return "no" if "no" in words else "yes"
    return None


def letter_in(answer):
    found = re.findall(r"(?<![A-Za-z])[A-D](?![A-Za-z])", answer)
    return found[-1] if found else None


def is_right(row, answer, terms):
    """Whether an answer says what the gold says, and nothing else of its kind."""
    kind, gold, language = row["kind"], row["gold"], row["language"]
    if kind == "yes":
        return yes_or_no(answer, language) == gold
    if kind == "number":
        return number_in(answer) == int(gold)
    if kind == "letter":
        return letter_in(answer) == gold
    if kind in terms:
        known = terms[kind][language]
        return terms_in(answer, set(known) | {gold}, language) == {gold}
    return normal(answer) == normal(row["answer"]) or normal(answer) == normal(gold)
