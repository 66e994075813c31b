"""A picture under way, and what each of its places shows."""
import io
import math

import numpy
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from world import COLOURS

SIDE = 112
PATCH = 14
GRID = SIDE // PATCH
#: Shapes and lines are drawn this much larger, and reduced: Pillow draws no soft edges.
FINE = 3
#: A patch shows what covers so much of it; between the two it is left open.
SHOWN, OPEN = 0.22, 0.08

_noise = numpy.random.default_rng(7).normal(size=(4, SIDE * 2, SIDE * 2)).astype(numpy.float32)


class Canvas:
    def __init__(self, rng, ground=None, plain=False, light=None):
        """`ground`: the name of the ground's colour; None: any tint, which has no name.

        plain: of one tone; light: always a light one, or seven times in ten.
        """
        self.rng = rng
        self.ground = ground
        self.layers = []
        self.image = self._ground(plain, light)

    # Grounds

    def _ground(self, plain, light):
        rng = self.rng
        if self.ground:
            tone = shade(rng, self.ground)
            if self.ground in ("white", "gray", "black"):
                tone = shade(rng, self.ground)
        else:
            light = light or rng.random() < 0.7
            tone = tuple(rng.randint(190, 255) if light else rng.randint(20, 255)
                         for _ in range(3))
        style = "flat" if plain else rng.choices(
            ["flat", "gradient", "noise", "stripes", "blobs"], [8, 2, 0.5, 0.5, 0.5])[0]
        reach = 10 if self.ground or plain else 45
        image = Image.new("RGB", (SIDE, SIDE), tone)
        if style == "flat":
            return image
        other = Image.new("RGB", (SIDE, SIDE), tint(rng, tone, reach))
        return Image.composite(other, image, self._mask(style))

    def _mask(self, style):
        rng = self.rng
        if style == "gradient":
            mask = Image.linear_gradient("L").resize((SIDE, SIDE))
            return mask.rotate(rng.choice([0, 90, 180, 270]))
        if style == "noise":
            few = bytes(rng.randrange(256) for _ in range(49))
            return Image.frombytes("L", (7, 7), few).resize((SIDE, SIDE), Image.BICUBIC)
        mask = Image.new("L", (SIDE, SIDE))
        drawing = ImageDraw.Draw(mask)
        if style == "stripes":
            step = rng.randint(8, 28)
            upright = rng.random() < 0.5
            for start in range(rng.randrange(step), SIDE, step * 2):
                box = (start, 0, start + step, SIDE)
                drawing.rectangle(box if upright else (box[1], box[0], box[3], box[2]), fill=255)
        else:
            for _ in range(rng.randint(2, 5)):
                x, y, r = rng.randrange(SIDE), rng.randrange(SIDE), rng.randint(10, 40)
                drawing.ellipse((x - r, y - r, x + r, y + r), fill=255)
        return mask

    # Drawing

    def paste(self, drawing, x, y, what=0, colour=-1, thin=False):
        """Lays an RGBA drawing on the picture, its upper left corner at (x, y).

        what, colour: classes of the patches that it covers; 0: as the ground, -1: left open.
        thin: a line, of which little is enough.
        """
        self.image.paste(drawing, (x, y), drawing)
        mask = Image.new("L", (SIDE, SIDE))
        mask.paste(drawing.getchannel("A"), (x, y))
        self.cover(mask, what, colour, thin)

    def cover(self, mask, what, colour=-1, thin=False):
        """Says that what was drawn through a mask [SIDE, SIDE] is of these classes."""
        share = numpy.asarray(mask.reduce(PATCH), dtype=numpy.float32) / 255
        for layer in self.layers:
            layer[2] *= 1 - share
        self.layers.append([what, colour, share.copy(), 0.1 if thin else SHOWN])

    def box(self, left, top, right, bottom, what, colour=-1):
        """Says what a rectangle holds without drawing: a character takes its box."""
        mask = Image.new("L", (SIDE, SIDE))
        mask.paste(255, tuple(round(v) for v in (left, top, right, bottom)))
        self.cover(mask, what, colour)

    # Labels

    def labels(self, colours):
        """Classes of patches and cells, in raster order.

        patches: one class each of `what` and of `colour`, -1 where none is clear.
        cells (2 x 2 patches, one image token each): all classes that it shows.
        """
        ground = colours.get(self.ground, -1)
        what = numpy.zeros((GRID, GRID), dtype=int)
        colour = numpy.full((GRID, GRID), ground)
        best = numpy.zeros((GRID, GRID), dtype=numpy.float32)
        cells = [([], []) for _ in range(GRID * GRID // 4)]
        for kind, tone, share, shown in self.layers:
            wins = share > best
            best = numpy.where(wins, share, best)
            what[wins & (share >= shown)] = kind
            what[wins & (share < shown) & (share >= min(OPEN, shown / 2))] = -1
            colour[wins & (share >= 1.5 * shown)] = tone
            colour[wins & (share < 1.5 * shown) & (share >= min(OPEN, shown / 2))] = -1
            self._cells(cells, kind, tone, share)
        for index, (_, tones) in enumerate(cells):
            row, column = 2 * (index // (GRID // 2)), 2 * (index % (GRID // 2))
            covered = sum(layer[2][row:row + 2, column:column + 2].sum() for layer in self.layers)
            if ground >= 0 and ground not in tones and covered < 2.4:
                tones.append(ground)
        return {
            "patches": {"what": what.ravel().tolist(), "colour": colour.ravel().tolist()},
            "cells": {"what": [c[0] for c in cells], "colour": [c[1] for c in cells]},
        }

    @staticmethod
    def _cells(cells, kind, tone, share):
        per_cell = share.reshape(GRID // 2, 2, GRID // 2, 2).sum(axis=(1, 3)).ravel()
        # A quarter of a patch, or a good part of something small.
        least = min(0.5, 0.25 * float(share.sum()))
        for index in numpy.flatnonzero(per_cell >= max(least, 0.1)):
            whats, tones = cells[index]
            if kind > 0 and kind not in whats:
                whats.append(kind)
            if tone >= 0 and tone not in tones:
                tones.append(tone)

    # The end

    def encoded(self, gentle=False, troubled=0.5):
        """JPEG after a camera's troubles: light, contrast, blur, noise, and what JPEG drops.

        troubled: the share of pictures that have more of these than the last.
        """
        rng, image = self.rng, self.image
        if rng.random() < troubled:
            # Colours that are asked for must stay what they are called.
            gentle = gentle or self.ground is not None
            reach = 0.08 if gentle else 0.15
            image = ImageEnhance.Brightness(image).enhance(rng.uniform(1 - reach, 1 + reach))
            image = ImageEnhance.Contrast(image).enhance(rng.uniform(1 - reach, 1 + reach))
            if rng.random() < 0.3:
                image = ImageEnhance.Color(image).enhance(rng.uniform(0.85, 1.15))
            if rng.random() < 0.1:
                image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.6)))
            if rng.random() < 0.3:
                image = self._noisy(image, rng.uniform(2, 6))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=rng.randint(70, 95))
        return file.getvalue()

    def _noisy(self, image, strength):
        rng = self.rng
        x, y = rng.randrange(SIDE), rng.randrange(SIDE)
        noise = _noise[rng.randrange(4), y:y + SIDE, x:x + SIDE, None] * strength
        pixels = numpy.asarray(image, dtype=numpy.float32) + noise
        return Image.fromarray(numpy.clip(pixels, 0, 255).astype(numpy.uint8))


def tint(rng, colour, reach):
    return tuple(min(255, max(0, c + rng.randint(-reach, reach))) for c in colour)


def shade(rng, name):
    """A colour that still goes by this name; the gray ones must not take on a hue."""
    return tint(rng, COLOURS[name][1], 5 if name in ("white", "gray", "black") else 14)


def distance(a, b):
    return math.dist(a, b)


def turned(rng, sprite, size, angle, flip=True):
    """A drawing of so many pixels on its longer side, turned, and now and then mirrored."""
    scale = size / max(sprite.size)
    drawn = sprite.convert("RGBa").resize(
        [max(1, round(s * scale)) for s in sprite.size], Image.BICUBIC, reducing_gap=2.0)
    if flip and rng.random() < 0.5:
        drawn = drawn.transpose(Image.FLIP_LEFT_RIGHT)
    if angle:
        # What touches the border would have hard edges when turned.
        framed = Image.new("RGBa", (drawn.width + 2, drawn.height + 2))
        framed.paste(drawn, (1, 1))
        drawn = framed.rotate(rng.uniform(-angle, angle), Image.BICUBIC, expand=True)
    return drawn.convert("RGBA")


def reduced(fine):
    """From FINE times the size to the picture's."""
    return fine.convert("RGBa").reduce(FINE).convert("RGBA")


def stencil():
    """A mask of the whole picture in FINE, to draw on with 255; ``inked`` makes a drawing of it."""
    mask = Image.new("L", (SIDE * FINE, SIDE * FINE))
    return mask, ImageDraw.Draw(mask)


def inked(mask, rgb):
    """RGBA of one colour, as opaque as a stencil says."""
    drawn = Image.new("RGBA", (SIDE, SIDE), rgb)
    drawn.putalpha(mask.reduce(FINE))
    return drawn


def scaled(*values):
    """Of the picture's pixels to a stencil's."""
    return tuple(v * FINE for v in values)
