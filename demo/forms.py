"""Draws form-like images (labelled rows of digit boxes) and asks questions about them.

Shared by `draw_shapes.py`, whose digits are printed, and `make_handwriting.py`, whose digits are scans of real handwriting.
Every image is a 5 x 5 grid of cells, of varied size and aspect; the embedded model sees one cell as one image token.
Everything is a pure function of the `random.Random` handed in, so a seed fixes every pixel.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter, ImageFont

GRID = 5  # cells a side
LABELS = "ABCDEF"  # of the rows
TITLES = ("FORM", "TOTAL", "ORDER", "METER", "COUNT", "SCORE", "STOCK", "LIST")
PAPERS = ((255, 255, 255), (250, 247, 238), (240, 244, 250), (245, 240, 225), (233, 236, 232), (255, 250, 220))
INKS = ((20, 20, 24), (25, 40, 120), (60, 60, 64), (110, 25, 30), (20, 70, 60))
RULES = ((150, 150, 155), (120, 150, 190), (190, 140, 130), (170, 170, 150))
STYLES = ("boxes", "boxes", "line", "comb", "none")
Answer = tuple[str, str, str]  # kind of question, what it is about, its answer
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class FormRow:
    """One row: its printed label, its digits, and a picture of each digit (mode L, 255 = full ink)."""

    label: str
    digits: str
    glyphs: tuple[Image.Image, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question about an image; `kind` names its type in the figures."""

    kind: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Blank paper with a grid of cells of `width` x `height` pixels, and the ink and rule that everything on it shares."""

    image: Image.Image
    width: int
    height: int
    ink: Colour
    rule: Colour

    def box(self, column: int, row: int) -> Box:
        """The cell's edges."""
        return column * self.width, row * self.height, (column + 1) * self.width, (row + 1) * self.height


def blank_sheet(rng: random.Random) -> Sheet:
    """Paper of 90 to 180 pixels a side, at most a quarter wider than high or the other way round."""
    side = rng.randint(20, 32)
    width, height = rng.choice(((side, side), (side, round(side * rng.uniform(0.8, 1))), (round(side * rng.uniform(0.8, 1)), side)))
    image = Image.new("RGB", (GRID * width, GRID * height), rng.choice(PAPERS))
    return Sheet(image=image, width=width, height=height, ink=rng.choice(INKS), rule=rng.choice(RULES))


@functools.cache
def label_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that forms need no font file."""
    return ImageFont.load_default(size)


def pick_rows(rng: random.Random) -> list[tuple[str, str]]:
    """Labels and digits of one form: 1 to 3 rows of 1 to 4 digits, e.g. `[("A", "407"), ("B", "31")]`."""
    count = rng.choice((1, 2, 2, 3))
    first = rng.choice((0, 0, rng.randrange(len(LABELS) - count + 1)))
    numbers = ("".join(rng.choice("0123456789") for _ in range(rng.choice((1, 2, 2, 3, 3, 4)))) for _ in range(count))
    return list(zip(LABELS[first:], numbers, strict=False))


def draw_form(rng: random.Random, rows: list[FormRow]) -> Image.Image:
    """A form as an RGB image: rows in places of the grid that vary, some with a title above, ruled or boxed or neither."""
    sheet = blank_sheet(rng)
    draw = ImageDraw.Draw(sheet.image)
    longest = max(len(row.digits) for row in rows)
    left = rng.choice((0, 0, rng.randint(0, GRID - 1 - longest)))
    pitch = rng.choice((1, 1, 2)) if len(rows) * 2 - 1 <= GRID else 1
    top = rng.randint(0, GRID - 1 - (len(rows) - 1) * pitch)
    style = rng.choice(STYLES)
    if top > 0 and rng.random() < 0.4:
        x, _, _, y = sheet.box(left, top - 1)
        draw.text((x + 3, y - 3), rng.choice(TITLES), fill=sheet.rule, font=label_font(max(9, round(sheet.height * 0.5))), anchor="ls")
    for k, row in enumerate(rows):
        line = top + k * pitch
        print_label(draw, row.label, sheet.box(left, line), rng.choice(((30, 30, 30), sheet.rule)))
        for place, glyph in enumerate(row.glyphs):
            box = sheet.box(left + 1 + place, line)
            rule_cell(draw, style, sheet.rule, box)
            ink_glyph(rng, sheet, glyph, box)
    return finish(rng, sheet)


def finish(rng: random.Random, sheet: Sheet) -> Image.Image:
    """The image, a little out of focus now and then."""
    return sheet.image.filter(ImageFilter.GaussianBlur(0.6)) if rng.random() < 0.2 else sheet.image


def print_label(draw: ImageDraw.ImageDraw, label: str, box: Box, fill: Colour) -> None:
    """A printed letter in the middle of a cell."""
    left, top, right, bottom = box
    font = label_font(round(min(right - left, bottom - top) * 0.65))
    draw.text(((left + right) / 2, (top + bottom) / 2), label, fill=fill, font=font, anchor="mm")


def rule_cell(draw: ImageDraw.ImageDraw, style: str, rule: Colour, box: Box) -> None:
    """A box, a base line or a comb around one cell, or nothing."""
    left, top, right, bottom = box
    if style == "boxes":
        draw.rectangle((left, top + 1, right - 1, bottom - 2), outline=rule)
    elif style == "line":
        draw.line((left, bottom - 2, right - 1, bottom - 2), fill=rule)
    elif style == "comb":
        draw.line((left, bottom - 6, left, bottom - 2, right - 1, bottom - 2, right - 1, bottom - 6), fill=rule)


def ink_glyph(rng: random.Random, sheet: Sheet, glyph: Image.Image, box: Box) -> None:
    """Inks a glyph into a cell with a turn, a scale and a shift of its own."""
    left, top, right, bottom = box
    side = round(min(right - left, bottom - top) * rng.uniform(0.75, 0.97))
    mask = glyph.resize((side, side), Image.Resampling.BICUBIC).rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
    x = round((left + right - side) / 2) + rng.randint(-1, 1)
    y = round((top + bottom - side) / 2) + rng.randint(-1, 1)
    sheet.image.paste(sheet.ink, (x, y), mask)


# How the demo asks; the base model is asked the same things of printed forms in other words (draw_shapes.py).
WORDING = {
    "read": "What number is in row {}?",
    "count": "How many digits are there?",
    "largest": "What is the largest digit?",
    "contains": "Is there a {}?",
    "which": "Which row has a {}?",
    "rows": "Which rows are there?",
    "lines": "How many rows are there?",
}


def ask_form(rng: random.Random, rows: list[FormRow], count: int, wording: dict[str, str]) -> list[Asked]:
    """`count` questions of different kinds, in random order."""
    found = rng.sample([ask(rng, rows) for ask in (ask_read, ask_count, ask_largest, ask_contains, ask_which)], count)
    return put_in_words(found, wording)


def put_in_words(found: list[Answer], wording: dict[str, str]) -> list[Asked]:
    """Questions with their answers."""
    return [Asked(kind=kind, question=wording[kind].format(about), answer=answer) for kind, about, answer in found]


def ask_read(rng: random.Random, rows: list[FormRow]) -> Answer:
    row = rng.choice(rows)
    return "read", row.label, row.digits


def ask_count(rng: random.Random, rows: list[FormRow]) -> Answer:
    return "count", "", str(sum(len(row.digits) for row in rows))


def ask_largest(rng: random.Random, rows: list[FormRow]) -> Answer:
    return "largest", "", max(digit for row in rows for digit in row.digits)


def ask_contains(rng: random.Random, rows: list[FormRow]) -> Answer:
    present = sorted({digit for row in rows for digit in row.digits})
    absent = sorted(set("0123456789") - set(present))
    there = rng.random() < 0.5
    digit = rng.choice(present if there or not absent else absent)
    return "contains", digit, "yes" if digit in present else "no"


def ask_which(rng: random.Random, rows: list[FormRow]) -> Answer:
    """Which row holds a digit that only one row holds; which rows there are, where every digit is in several."""
    found = [(row.label, digit) for row in rows for digit in sorted(set(row.digits)) if sum(digit in other.digits for other in rows) == 1]
    if not found:
        return "rows", "", " ".join(row.label for row in rows)
    label, digit = rng.choice(found)
    return "which", digit, label
