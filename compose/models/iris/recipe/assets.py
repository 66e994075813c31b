"""What a set of pictures is drawn from: drawings, fonts, words. Training and tests differ here."""
import functools
from pathlib import Path

from PIL import ImageFont

from sprites import Sprites
from world import THINGS, TRAINED, is_held_out

LATIN = [
    "debian/fonts-dejavu-core/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "debian/fonts-dejavu-core/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf",
    "debian/fonts-dejavu-core/usr/share/fonts/truetype/dejavu/DejaVuSerif.ttf",
    "debian/fonts-dejavu-core/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf",
    "debian/fonts-liberation/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "debian/fonts-liberation/usr/share/fonts/truetype/liberation/LiberationSans-Bold.ttf",
    "debian/fonts-liberation/usr/share/fonts/truetype/liberation/LiberationSerif-Bold.ttf",
    "debian/fonts-liberation/usr/share/fonts/truetype/liberation/LiberationMono-Regular.ttf",
    "debian/fonts-comic-neue/usr/share/fonts/opentype/comic-neue/ComicNeue-Bold.otf",
]
EASY_LATIN = [LATIN[1], LATIN[5]]
UNSEEN_LATIN = ["debian/fonts-lato/usr/share/fonts/truetype/lato/Lato-Bold.ttf"]
CHINESE = [
    "debian/fonts-wqy-microhei/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
    "debian/fonts-arphic-ukai/usr/share/fonts/truetype/arphic/ukai.ttc",
]
WORDS = "debian/wamerican/usr/share/dict/american-english"


class Assets:
    """Those of training; the arguments say what is held out and asked for instead.

    style: a drawing style for all things; font: "unseen"; words: "unseen".
    easy: for the first pictures of all: one style, two fonts, large, upright, on light grounds.
    """

    def __init__(self, sources, sprites, style=None, font="seen", words="seen",
                 easy=False):
        self.sources = Path(sources)
        self.sprites = Sprites(sprites)
        self.style = "noto" if easy else style
        self.easy = easy
        self.latin = EASY_LATIN if easy else LATIN if font == "seen" else UNSEEN_LATIN
        self.chinese = CHINESE[:1] if easy else CHINESE
        self.things = TRAINED
        self.counted = [t for t in TRAINED if t.is_counted]
        self.words = self._words(words == "unseen")

    def _words(self, unseen):
        """Short lower-case words: names of things first, since these are also spoken."""
        names = [w for t in THINGS for w in t.english.split() if 3 <= len(w) <= 8 and w.isalpha()]
        lines = (self.sources / WORDS).read_text(encoding="utf-8").split()
        common = [w for w in lines
                  if 3 <= len(w) <= 6 and w.isascii() and w.isalpha() and w.islower()]
        # One in fourteen: enough to spell by letters, few enough to be seen more than once.
        words = sorted(set(names)) * 4 + common[::14]
        return [w for w in words if is_held_out(w) == unseen]

    @functools.cache
    def font(self, path, size):
        return ImageFont.truetype(str(self.sources / path), size)

    def latin_font(self, rng, size):
        return self.font(rng.choice(self.latin), size)

    def chinese_font(self, rng, size):
        return self.font(rng.choices(self.chinese, [2, 1][:len(self.chinese)])[0], size)

    def sprite(self, rng, thing):
        return self.sprites.choose(rng, thing, self.style)
