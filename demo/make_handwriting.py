"""Lays real handwritten digits out as forms and asks questions about them: `python demo/make_handwriting.py --out demo/data/handwriting`.

The digits are the 1,797 scans that scikit-learn carries (UCI "Optical Recognition of Handwritten Digits", Alpaydin & Kaynak, 1998;
CC BY 4.0). They are split BEFORE anything is drawn: a scan that occurs in an eval image occurs in no training image.
Writes train.jsonl (one conversation per image, several questions each), eval.jsonl (one question per line) and images/*.png.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
from forms import (
    WORDING,
    Asked,
    FormRow,
    ask_contains,
    ask_count,
    ask_largest,
    ask_which,
    draw_form,
    pick_rows,
    put_in_words,
)
from PIL import Image
from sklearn.datasets import load_digits

EVAL_SCANS = 360  # of 1,797
Scans = dict[str, list[Image.Image]]


def split_scans(seed: int) -> tuple[Scans, Scans]:
    """(training, eval) scans by digit, as 8 x 8 masks (mode L, 255 = full ink); no scan is in both."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.images))
    parts: tuple[Scans, Scans] = (defaultdict(list), defaultdict(list))
    for place, index in enumerate(order):
        ink = np.rint(digits.images[index] * (255 / 16)).astype(np.uint8)
        parts[place < EVAL_SCANS][str(digits.target[index])].append(Image.fromarray(ink, "L"))
    return parts


def handwritten(rng: random.Random, scans: Scans) -> list[FormRow]:
    """The rows of one form, each digit one scan."""
    return [
        FormRow(label=label, digits=number, glyphs=tuple(rng.choice(scans[digit]) for digit in number)) for label, number in pick_rows(rng)
    ]


def questions(rng: random.Random, rows: list[FormRow]) -> list[Asked]:
    """Read one or two rows, count digits and rows, find the largest digit, look one digit up; in random order."""
    found = [("read", row.label, row.digits) for row in rng.sample(rows, min(2, len(rows)))]
    found += [("lines", "", str(len(rows))), ask_count(rng, rows), ask_largest(rng, rows), rng.choice((ask_contains, ask_which))(rng, rows)]
    return rng.sample(put_in_words(found, WORDING), len(found))


def as_messages(picture: str, asked: list[Asked]) -> dict[str, object]:
    """One conversation about one image: the image comes with the first question."""
    messages: list[dict[str, object]] = []
    for turn, item in enumerate(asked):
        question: object = item.question if turn else [{"type": "image", "image": picture}, {"type": "text", "text": item.question}]
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": item.answer}]
    return {"messages": messages}


def build(out: Path, train: int, held_out: int, seed: int) -> None:
    """Writes both splits and says what was written."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    parts = dict(zip(("train", "eval"), split_scans(seed), strict=True))
    for split, count in (("train", train), ("eval", held_out)):
        rng = random.Random(f"{seed} {split}")
        lines = []
        for index in range(count):
            rows = handwritten(rng, parts[split])
            picture = f"images/{split}_{index:05d}.png"
            draw_form(rng, rows).save(out / picture, compress_level=1)
            asked = questions(rng, rows)
            if split == "train":
                lines.append(as_messages(picture, asked))
            else:
                lines += [{"image": picture, "question": item.question, "answer": item.answer, "kind": item.kind} for item in asked]
        (out / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        print(f"{out}/{split}.jsonl: {count} images, {len(lines)} lines")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo/data/handwriting"), help="folder to write to")
    parser.add_argument("--train", type=int, default=4000, help="training images")
    parser.add_argument("--eval", type=int, default=120, help="held-out images")
    parser.add_argument("--seed", type=int, default=0, help="fixes every pixel and question")
    arguments = parser.parse_args()
    build(arguments.out, arguments.train, arguments.eval, arguments.seed)


if __name__ == "__main__":
    main()
