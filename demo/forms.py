"""Draws form-like images (labelled rows of digit boxes) and asks questions about them.

Shared by `draw_shapes.py`, whose digits are printed, and `make_handwriting.py`, whose digits are scans of real handwriting.
Everything is a pure function of the `random.Random` handed in, so a seed fixes every pixel.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter, ImageFont

LABELS = "ABC"  # of the rows, from the top
TITLES = ("FORM", "TOTAL", "ORDER", "METER", "COUNT", "SCORE", "STOCK", "LIST")
PAPERS = ((255, 255, 255), (250, 247, 238), (240, 244, 250), (245, 240, 225), (233, 236, 232), (255, 250, 220))
INKS = ((20, 20, 24), (25, 40, 120), (60, 60, 64), (110, 25, 30), (20, 70, 60))
RULES = ((150, 150, 155), (120, 150, 190), (190, 140, 130), (170, 170, 150))
MIN_ASPECT, MAX_ASPECT = 0.7, 1.5  # width / height of a whole form


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


@functools.cache
def label_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that forms need no font file."""
    return ImageFont.load_default(size)


def pick_digits(rng: random.Random) -> list[str]:
    """The digits of one form: 1 to 3 rows of 1 to 3 digits, e.g. `["407", "31"]`."""
    return ["".join(rng.choice("0123456789") for _ in range(rng.choice((1, 2, 2, 3)))) for _ in range(rng.choice((1, 1, 2, 2, 3)))]


def draw_form(rng: random.Random, rows: list[FormRow]) -> Image.Image:
    """A form as an RGB image of varied size (about 80 to 200 pixels a side)."""
    cell = rng.randint(22, 38)
    pitch = round(cell * rng.uniform(1.1, 1.35))  # distance between rows
    label_width = round(cell * rng.uniform(0.7, 1.0))
    longest = max(len(row.digits) for row in rows)
    title_height = round(cell * 0.6) if rng.random() < 0.35 else 0
    content = (label_width + longest * cell, title_height + len(rows) * pitch)
    width, height = _canvas(rng, cell, content)
    ink, rule = rng.choice(INKS), rng.choice(RULES)
    image = Image.new("RGB", (width, height), rng.choice(PAPERS))
    draw = ImageDraw.Draw(image)
    x = rng.randint(2, max(2, width - content[0] - 2))
    y = rng.randint(2, max(2, height - content[1] - 2))
    if title_height:
        draw.text((x, y), rng.choice(TITLES), fill=rule, font=label_font(max(9, title_height - 3)))
        y += title_height
    style = rng.choice(("boxes", "boxes", "line", "comb", "none"))
    for row in rows:
        draw.text((x + 1, y + cell / 2), row.label, fill=rng.choice(((30, 30, 30), rule)), font=label_font(round(cell * 0.6)), anchor="lm")
        _rule(draw, style, rule, (x + label_width, y, cell, len(row.digits)))
        for place, glyph in enumerate(row.glyphs):
            _ink(rng, image, glyph, ink, (x + label_width + place * cell, y, cell))
        y += pitch
    return image.filter(ImageFilter.GaussianBlur(0.6)) if rng.random() < 0.2 else image


def _canvas(rng: random.Random, cell: int, content: tuple[int, int]) -> tuple[int, int]:
    """Width and height around the content, kept within the allowed aspect."""
    width = max(round(content[0] * rng.uniform(1.06, 1.3)), round(cell * 3.2))
    height = max(round(content[1] * rng.uniform(1.06, 1.3)), round(cell * 2.4))
    width = max(width, round(height * MIN_ASPECT))
    height = max(height, round(width / MAX_ASPECT))
    return width, height


def _rule(draw: ImageDraw.ImageDraw, style: str, colour: tuple[int, int, int], place: tuple[int, int, int, int]) -> None:
    """Boxes, a base line or a comb under the digits; `place` is x, y, cell and the number of cells."""
    x, y, cell, count = place
    right, bottom = x + count * cell, y + cell
    if style == "boxes":
        for k in range(count):
            draw.rectangle((x + k * cell, y, x + (k + 1) * cell, bottom), outline=colour)
    elif style == "line":
        draw.line((x, bottom, right, bottom), fill=colour)
    elif style == "comb":
        draw.line((x, bottom, right, bottom), fill=colour)
        for k in range(count + 1):
            draw.line((x + k * cell, bottom - cell // 3, x + k * cell, bottom), fill=colour)


def _ink(rng: random.Random, image: Image.Image, glyph: Image.Image, ink: tuple[int, int, int], place: tuple[int, int, int]) -> None:
    """Inks a glyph into its cell with a little turn, scale and shift of its own."""
    x, y, cell = place
    side = round(cell * rng.uniform(0.78, 0.98))
    mask = glyph.resize((side, side), Image.Resampling.BICUBIC)
    mask = mask.rotate(rng.uniform(-9, 9), Image.Resampling.BICUBIC)
    slack = cell - side
    left, top = x + slack // 2 + rng.randint(-1, 1), y + slack // 2 + rng.randint(-1, 1)
    image.paste(ink, (left, top), mask)


def ask_form(rng: random.Random, rows: list[FormRow], count: int) -> list[Asked]:
    """`count` questions of different kinds, in random order."""
    return rng.sample([ask(rng, rows) for ask in (_read, _count, _largest, _contains, _which)], count)


def _read(rng: random.Random, rows: list[FormRow]) -> Asked:
    row = rng.choice(rows)
    return Asked(kind="read", question=f"What number is in row {row.label}?", answer=row.digits)


def _count(rng: random.Random, rows: list[FormRow]) -> Asked:
    total = sum(len(row.digits) for row in rows)
    return Asked(kind="count", question="How many digits are there in all?", answer=str(total))


def _largest(rng: random.Random, rows: list[FormRow]) -> Asked:
    row = rng.choice(rows)
    return Asked(kind="largest", question=f"What is the largest digit in row {row.label}?", answer=max(row.digits))


def _contains(rng: random.Random, rows: list[FormRow]) -> Asked:
    present = sorted({digit for row in rows for digit in row.digits})
    absent = sorted(set("0123456789") - set(present))
    there = rng.random() < 0.5
    digit = rng.choice(present if there or not absent else absent)
    return Asked(kind="contains", question=f"Is there a {digit}?", answer="yes" if digit in present else "no")


def _which(rng: random.Random, rows: list[FormRow]) -> Asked:
    """Which row holds a digit that only one row holds; which number, where no digit is in one row only."""
    found = [(row.label, digit) for row in rows for digit in sorted(set(row.digits)) if sum(digit in other.digits for other in rows) == 1]
    if not found:
        return Asked(kind="which", question="Which rows are there?", answer=" ".join(row.label for row in rows))
    label, digit = rng.choice(found)
    return Asked(kind="which", question=f"Which row has a {digit}?", answer=label)
