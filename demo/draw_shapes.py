"""Draws the images that the embedded model is pre-trained on: `python demo/draw_shapes.py --out demo/data/shapes`.

Three kinds of scene: coloured objects on a 3 x 3 grid (colour, shape, count, place), printed words, and forms with printed digits
in several fonts. No handwriting. Writes train.jsonl (one conversation per image), eval.jsonl (one question per line), images/*.png.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import random
from dataclasses import dataclass
from pathlib import Path

from forms import INKS, LABELS, PAPERS, Asked, FormRow, ask_form, draw_form, pick_digits
from make_handwriting import as_messages
from PIL import Image, ImageDraw, ImageFont

COLOURS = {
    "red": (214, 40, 40), "green": (40, 150, 60), "blue": (40, 80, 200), "yellow": (240, 200, 30),
    "purple": (130, 50, 160), "orange": (240, 130, 30), "black": (25, 25, 25), "pink": (240, 130, 180),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross", "diamond")
PLURALS = {"cross": "crosses"}
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
WORDS = tuple(
    "name date total order paid open stop exit left right cash card milk bread tea rice salt red blue green north south east west"
    " one two three four five six seven eight nine ten yes no ok new sale book page line row box form key gate bus taxi hotel"
    " bank post shop park road room desk door lamp fish bird cat dog sun moon star tree".split()
)
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmss10", "cmtt10", "cmb10",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """A coloured object on the 3 x 3 grid; `place` counts row by row from the top left."""

    colour: str
    shape: str
    place: int

    @property
    def name(self) -> str:
        """E.g. `red circle`."""
        return f"{self.colour} {self.shape}"


@functools.cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font that comes with matplotlib; `default` is Pillow's own."""
    spec = importlib.util.find_spec("matplotlib")
    if name == "default" or spec is None or spec.origin is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf", size)


@functools.cache
def printed_digit(name: str, digit: str) -> Image.Image:
    """A printed digit filling a 32 x 32 mask (mode L, 255 = full ink)."""
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).text((32, 32), digit, fill=255, font=font(name, 44), anchor="mm")
    left, top, right, bottom = mask.getbbox() or (0, 0, 64, 64)
    half = max(right - left, bottom - top) / 2 + 1
    x, y = (left + right) / 2, (top + bottom) / 2
    return mask.crop((round(x - half), round(y - half), round(x + half), round(y + half))).resize((32, 32), Image.Resampling.BICUBIC)


def printed_form(rng: random.Random) -> tuple[Image.Image, list[Asked]]:
    """A form with printed digits."""
    numbers = pick_digits(rng)
    name = rng.choice((*FONTS, "default"))
    rows = [
        FormRow(label=label, digits=number, glyphs=tuple(printed_digit(name, digit) for digit in number))
        for label, number in zip(LABELS, numbers, strict=False)
    ]
    whole = Asked(kind="all", question="Read every row.", answer=" ".join(f"{row.label} {row.digits}" for row in rows))
    return draw_form(rng, rows), [whole, *ask_form(rng, rows, 5)]


def printed_words(rng: random.Random) -> tuple[Image.Image, list[Asked]]:
    """One to three printed words, one below the other."""
    lines = [_word(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    size = rng.randint(20, 34)
    letters = font(rng.choice((*FONTS, "default")), size)
    extent = max(letters.getlength(line) for line in lines)
    width = max(round(extent * rng.uniform(1.08, 1.4)), size * 3)
    height = max(round(size * 1.35 * len(lines) * rng.uniform(1.05, 1.3)), round(width / 1.8))
    image = Image.new("RGB", (width, height), rng.choice(PAPERS))
    draw = ImageDraw.Draw(image)
    x, y = rng.uniform(2, max(2, width - extent - 2)), rng.uniform(1, max(1, height - size * 1.35 * len(lines)))
    colour, ink = rng.choice((("black", rng.choice(INKS)), *((name, COLOURS[name]) for name in ("red", "green", "blue"))))
    for k, line in enumerate(lines):
        draw.text((x, y + k * size * 1.35), line, fill=ink, font=letters)
    k = rng.randrange(len(lines))
    asked = [
        Asked(kind="words", question="What does it say?", answer=" ".join(lines)),
        Asked(kind="lines", question="How many words are there?", answer=str(len(lines))),
        Asked(kind="line", question=f"What is word {k + 1}?", answer=lines[k]),
        Asked(kind="letter", question=f"What is the first letter of word {k + 1}?", answer=lines[k][0]),
    ]
    return image, asked if colour == "black" else [*asked, Asked(kind="colour", question="What color are the words?", answer=colour)]


def _word(rng: random.Random) -> str:
    """A common word, or two to four capitals that spell nothing, so that reading can't be guessing."""
    if rng.random() < 0.5:
        return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 4)))
    word = rng.choice(WORDS)
    return rng.choice((word, word.upper()))


def objects(rng: random.Random) -> tuple[Image.Image, list[Asked]]:
    """One to five coloured objects on a 3 x 3 grid."""
    places = rng.sample(range(9), rng.choice((1, 1, 2, 2, 3, 4, 5)))
    things = [Thing(colour=rng.choice(list(COLOURS)), shape=rng.choice(SHAPES), place=place) for place in sorted(places)]
    width, height = rng.randint(84, 180), rng.randint(84, 180)
    width, height = max(width, round(height * 0.75)), max(height, round(width * 0.75))
    image = Image.new("RGB", (width, height), rng.choice(PAPERS))
    draw = ImageDraw.Draw(image)
    for thing in things:
        across, down = width / 3, height / 3
        radius = min(across, down) * rng.uniform(0.26, 0.44)
        x = (thing.place % 3 + 0.5) * across + rng.uniform(-0.08, 0.08) * across
        y = (thing.place // 3 + 0.5) * down + rng.uniform(-0.08, 0.08) * down
        _shape(draw, thing.shape, (x, y, radius), COLOURS[thing.colour])
    return image, _ask_objects(rng, things)


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
    """Questions with exactly one right answer each."""
    one = rng.choice(things)
    shape, colour = rng.choice(things).shape, rng.choice(things).colour
    asked = [
        Asked(kind="describe", question="What is in the picture?", answer=", ".join(thing.name for thing in things)),
        Asked(kind="objects", question="How many objects are there?", answer=str(len(things))),
        Asked(kind="objects", question=f"How many {PLURALS.get(shape, shape + 's')} are there?", answer=str(sum(t.shape == shape for t in things))),
        Asked(kind="objects", question=f"How many {colour} objects are there?", answer=str(sum(t.colour == colour for t in things))),
    ]
    guess = rng.choice((one.name, f"{rng.choice(list(COLOURS))} {rng.choice(SHAPES)}"))
    there = "yes" if any(thing.name == guess for thing in things) else "no"
    asked.append(Asked(kind="there", question=f"Is there a {guess}?", answer=there))
    if sum(t.shape == one.shape for t in things) == 1:
        asked.append(Asked(kind="colour", question=f"What color is the {one.shape}?", answer=one.colour))
    if sum(t.colour == one.colour for t in things) == 1:
        asked.append(Asked(kind="shape", question=f"What shape is {one.colour}?", answer=one.shape))
    if sum(t.name == one.name for t in things) == 1:
        asked.append(Asked(kind="place", question=f"Where is the {one.name}?", answer=PLACES[one.place]))
    return asked


def draw_scene(rng: random.Random) -> tuple[Image.Image, list[Asked]]:
    """One image with the question about all of it and three others, in random order."""
    scene = rng.choice((printed_form, printed_form, objects, printed_words))
    image, (whole, *others) = scene(rng)
    asked = [whole, *rng.sample(others, min(3, len(others)))]
    rng.shuffle(asked)
    return image, asked


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
                    rows = [{"image": picture, "question": a.question, "answer": a.answer, "kind": a.kind} for a in asked[:2]]
                lines.writelines(json.dumps(row) + "\n" for row in rows)
        print(f"{out}/{split}.jsonl: {count} images")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo/data/shapes"), help="folder to write to")
    parser.add_argument("--train", type=int, default=40000, help="training images")
    parser.add_argument("--eval", type=int, default=200, help="held-out images")
    parser.add_argument("--seed", type=int, default=0, help="fixes every pixel and question")
    arguments = parser.parse_args()
    build(arguments.out, arguments.train, arguments.eval, arguments.seed)


if __name__ == "__main__":
    main()
