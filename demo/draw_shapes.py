"""Draws the images that the embedded model is pre-trained on: `python demo/draw_shapes.py --out demo/data/shapes`.

Sheets of printed digits or letters in many fonts, forms with printed digits, words in boxes, and coloured objects (colour, shape,
count, place). No handwriting. Writes train.jsonl (one conversation per image), eval.jsonl (one question per line), images/*.png.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import random
from dataclasses import dataclass
from pathlib import Path

from forms import GRID, STYLES, Asked, FormRow, ask_form, blank_sheet, draw_form, finish, ink_glyph, pick_rows, rule_cell
from make_handwriting import as_messages
from PIL import Image, ImageDraw, ImageFont

COLOURS = {
    "red": (214, 40, 40), "green": (40, 150, 60), "blue": (40, 80, 200), "yellow": (240, 200, 30),
    "purple": (130, 50, 160), "orange": (240, 130, 30), "black": (25, 25, 25), "pink": (240, 130, 180),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross", "diamond")
PLURALS = {"cross": "crosses"}
ACROSS, DOWN = ("left", "left", "middle", "right", "right"), ("top", "top", "middle", "bottom", "bottom")
DIGITS, CAPITALS = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WORDS = tuple(
    "NAME DATE TOTAL ORDER PAID OPEN STOP EXIT LEFT RIGHT CASH CARD MILK BREAD TEA RICE SALT RED BLUE GREEN NORTH SOUTH EAST WEST"
    " ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE TEN YES NO OK NEW SALE BOOK PAGE LINE ROW BOX FORM KEY GATE BUS TAXI HOTEL".split()
)
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmss10", "cmtt10", "cmb10",
)  # fmt: skip
PRINTED = {
    "read": "Row {}?", "count": "Count the digits.", "largest": "Biggest digit?",
    "contains": "Any {} here?", "which": "Find the {}.", "rows": "Name the rows.",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A coloured object on the grid; `cell` counts row by row from the top left."""

    colour: str
    shape: str
    cell: int

    @property
    def name(self) -> str:
        """E.g. `red circle`."""
        return f"{self.colour} {self.shape}"

    @property
    def place(self) -> str:
        """E.g. `top left`; `middle` for the very middle."""
        down, across = DOWN[self.cell // GRID], ACROSS[self.cell % GRID]
        return down if down == across else f"{down} {across}"


@functools.cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font that comes with matplotlib; `default` is Pillow's own."""
    if name == "default":
        return ImageFont.load_default(size)
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise SystemExit("draw_shapes.py prints with the fonts that come with matplotlib: pip install matplotlib")
    return ImageFont.truetype(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf", size)


@functools.cache
def printed(name: str, character: str) -> Image.Image:
    """A printed character filling a 32 x 32 mask (mode L, 255 = full ink)."""
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).text((32, 32), character, fill=255, font=font(name, 44), anchor="mm")
    left, top, right, bottom = mask.getbbox() or (0, 0, 64, 64)
    half = max(right - left, bottom - top) / 2 + 1
    x, y = (left + right) / 2, (top + bottom) / 2
    return mask.crop((round(x - half), round(y - half), round(x + half), round(y + half))).resize((32, 32), Image.Resampling.BICUBIC)


def characters(rng: random.Random) -> tuple[Image.Image, list[Asked]]:
    """A sheet with a printed digit, or a capital, in every cell: the shortest way to learn all of them."""
    alphabet = rng.choice((DIGITS, DIGITS, CAPITALS))
    text = [rng.choice(alphabet) for _ in range(GRID * GRID)]
    return _print_cells(rng, dict(enumerate(text))), [Asked(kind="sheet", question="Read the sheet.", answer="".join(text))]


def printed_form(rng: random.Random) -> tuple[Image.Image, list[Asked]]:
    """A form with printed digits. The demo's questions are in other words, and new to the base model."""
    name = rng.choice((*FONTS, "default"))
    rows = [FormRow(label=label, digits=number, glyphs=tuple(printed(name, digit) for digit in number)) for label, number in pick_rows(rng)]
    whole = Asked(kind="all", question="Read every row.", answer=" ".join(f"{row.label} {row.digits}" for row in rows))
    return draw_form(rng, rows), [*ask_form(rng, rows, 3, PRINTED), whole]


def words(rng: random.Random) -> tuple[Image.Image, list[Asked]]:
    """One to three printed words, a letter to a cell, one word below the other."""
    lines = [_word(rng) for _ in range(rng.choice((1, 2, 3)))]
    first = rng.randint(0, GRID - len(lines))
    cells = {(first + k) * GRID + place: letter for k, line in enumerate(lines) for place, letter in enumerate(line)}
    k = rng.randrange(len(lines))
    return _print_cells(rng, cells), [
        Asked(kind="lines", question="How many words are there?", answer=str(len(lines))),
        Asked(kind="line", question=f"What is word {k + 1}?", answer=lines[k]),
        Asked(kind="words", question="What does it say?", answer=" ".join(lines)),
    ]


def _word(rng: random.Random) -> str:
    """A common word, or capitals that spell nothing, so that reading can't be guessing."""
    return rng.choice(WORDS) if rng.random() < 0.5 else "".join(rng.choice(CAPITALS) for _ in range(rng.randint(1, GRID)))


def _print_cells(rng: random.Random, cells: dict[int, str]) -> Image.Image:
    """Characters in one font and style, each in its cell, counted row by row."""
    sheet, name, style = blank_sheet(rng), rng.choice((*FONTS, "default")), rng.choice(STYLES)
    draw = ImageDraw.Draw(sheet.image)
    for cell, character in cells.items():
        box = sheet.box(cell % GRID, cell // GRID)
        rule_cell(draw, style, sheet.rule, box)
        ink_glyph(rng, sheet, printed(name, character), box)
    return finish(rng, sheet)


def objects(rng: random.Random) -> tuple[Image.Image, list[Asked]]:
    """One to five coloured objects, each in a cell of its own."""
    cells = sorted(rng.sample(range(GRID * GRID), rng.choice((1, 2, 2, 3, 4, 5))))
    things = [Thing(colour=rng.choice(list(COLOURS)), shape=rng.choice(SHAPES), cell=cell) for cell in cells]
    sheet = blank_sheet(rng)
    draw = ImageDraw.Draw(sheet.image)
    for thing in things:
        left, top, right, bottom = sheet.box(thing.cell % GRID, thing.cell // GRID)
        x, y = (left + right) / 2 + rng.uniform(-1, 1), (top + bottom) / 2 + rng.uniform(-1, 1)
        _shape(draw, thing.shape, (x, y, min(right - left, bottom - top) * rng.uniform(0.34, 0.48)), COLOURS[thing.colour])
    return finish(rng, sheet), _ask_objects(rng, things)


def _shape(draw: ImageDraw.ImageDraw, shape: str, where: tuple[float, float, float], fill: tuple[int, int, int]) -> None:
    x, y, r = where
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif shape == "square":
        draw.rectangle((x - 0.85 * r, y - 0.85 * r, x + 0.85 * r, y + 0.85 * r), fill=fill)
    elif shape == "triangle":
        draw.polygon(((x, y - r), (x + r, y + 0.8 * r), (x - r, y + 0.8 * r)), fill=fill)
    elif shape == "diamond":
        draw.polygon(((x, y - r), (x + 0.7 * r, y), (x, y + r), (x - 0.7 * r, y)), fill=fill)
    else:
        draw.rectangle((x - r, y - 0.3 * r, x + r, y + 0.3 * r), fill=fill)
        draw.rectangle((x - 0.3 * r, y - r, x + 0.3 * r, y + r), fill=fill)


def _ask_objects(rng: random.Random, things: list[Thing]) -> list[Asked]:
    """Three questions with exactly one right answer each, then one about everything."""
    one = rng.choice(things)
    shape, colour = rng.choice(things).shape, rng.choice(things).colour
    guess = rng.choice((one.name, f"{rng.choice(list(COLOURS))} {rng.choice(SHAPES)}"))
    same_shape, same_colour = sum(t.shape == shape for t in things), sum(t.colour == colour for t in things)
    there = "yes" if any(thing.name == guess for thing in things) else "no"
    asked = [
        Asked(kind="objects", question="How many objects are there?", answer=str(len(things))),
        Asked(kind="objects", question=f"How many {PLURALS.get(shape, shape + 's')} are there?", answer=str(same_shape)),
        Asked(kind="objects", question=f"How many {colour} objects are there?", answer=str(same_colour)),
        Asked(kind="there", question=f"Is there a {guess}?", answer=there),
    ]
    if sum(t.shape == one.shape for t in things) == 1:
        asked.append(Asked(kind="colour", question=f"What color is the {one.shape}?", answer=one.colour))
    if sum(t.colour == one.colour for t in things) == 1:
        asked.append(Asked(kind="shape", question=f"What shape is {one.colour}?", answer=one.shape))
    if sum(t.name == one.name for t in things) == 1:
        asked.append(Asked(kind="place", question=f"Where is the {one.name}?", answer=one.place))
    whole = Asked(kind="describe", question="What is in the picture?", answer=", ".join(thing.name for thing in things))
    return [*rng.sample(asked, 3), whole]


def draw_scene(rng: random.Random) -> tuple[Image.Image, list[Asked]]:
    """One image and what is asked about it; the question about the whole of it comes last, since it gives the others away."""
    return rng.choices((characters, printed_form, words, objects), (8, 7, 2, 4))[0](rng)


def build(out: Path, train: int, held_out: int, seed: int) -> None:
    """Writes both splits and says what was written."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("eval", held_out)):
        rng = random.Random(f"{seed} {split}")
        with (out / f"{split}.jsonl").open("w", encoding="utf-8") as lines:
            for index in range(count):
                image, asked = draw_scene(rng)
                picture = f"images/{split}_{index:05d}.png"
                image.save(out / picture, compress_level=1)
                rows = [as_messages(picture, asked)]
                if split == "eval":
                    rows = [{"image": picture, "question": a.question, "answer": a.answer, "kind": a.kind} for a in asked]
                lines.writelines(json.dumps(row) + "\n" for row in rows)
        print(f"{out}/{split}.jsonl: {count} images")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo/data/shapes"), help="folder to write to")
    parser.add_argument("--train", type=int, default=36000, help="training images")
    parser.add_argument("--eval", type=int, default=200, help="held-out images")
    parser.add_argument("--seed", type=int, default=0, help="fixes every pixel and question")
    arguments = parser.parse_args()
    build(arguments.out, arguments.train, arguments.eval, arguments.seed)


if __name__ == "__main__":
    main()
