"""The samples that Foveate and its peers train on, the same from the same seed: real PNG and JPEG files, and records in each tool's
format.

`write(mix, folder)` leaves there
    images/            the pictures
    records.jsonl      {"messages": [...], "images": [...]}, in the order of training: LLaMA-Factory, ms-swift and NeMo Automodel
    foveate.jsonl      the same records, placed so that Foveate's keyed permutation visits them in that order
    apart.jsonl        the same records, shuffled: questions about a picture lie anywhere in the file
    trl/train.parquet  prompt, completion, images: TRL's format in which only answers are scored
    dataset_info.json  what LLaMA-Factory and Automodel call the file
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from PIL import ImageDraw

from foveate.batching.plan import permuted

COLOURS = {
    "red": (214, 40, 40), "green": (40, 150, 60), "blue": (40, 70, 210), "yellow": (235, 215, 50), "purple": (130, 50, 160),
    "orange": (240, 140, 30), "grey": (120, 120, 120), "cyan": (50, 190, 205),
}  # fmt: skip
SHAPES = ("disc", "block", "wedge")
PLACES = ("left", "middle", "right")
WORDS = (
    "a an the this that old new small tall wide narrow pale dark plain quiet boat harbour bridge tower garden gate orchard wall lamp "
    "table chair cup bottle coat hat letter map clock ladder rope barrel wagon horse goat crow farmer baker tailor sailor clerk walks "
    "waits carries opens closes paints mends counts beside behind above below between near across along toward after before while "
    "because although often seldom twice slowly early late here there and but or with without for from into"
).split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How the records of a mix are drawn.

    Args:
        median_words, spread: of the text before each question, log-normal; spread 0 draws evenly from half to one and a half times.
        most_words: longer texts are cut to this, so that a sample fits in the peers' maximal length.
        questions: mean number of questions about a picture; 1 means that no two records share one.
        sides: shortest and longest side of a picture, in pixels.
    """

    name: str
    says: str
    median_words: int
    spread: float
    most_words: int
    questions: float
    sides: tuple[int, int]


MIXES = {
    mix.name: mix
    for mix in (
        Mix(name="uniform", says="short answers, like lengths", median_words=30, spread=0, most_words=60, questions=1, sides=(112, 224)),
        Mix(name="long_tail", says="log-normal lengths", median_words=40, spread=1.2, most_words=1200, questions=1, sides=(112, 224)),
        Mix(name="vqa", says="5.4 questions an image, as VQAv2", median_words=0, spread=0, most_words=0, questions=5.4, sides=(400, 520)),
        Mix(name="gqa", says="15 questions an image, as GQA", median_words=0, spread=0, most_words=0, questions=15, sides=(400, 520)),
        Mix(name="docvqa", says="4 questions an image, as DocVQA", median_words=0, spread=0, most_words=0, questions=4, sides=(640, 800)),
        Mix(name="tower", says="large tiled images, few words", median_words=0, spread=0, most_words=0, questions=1, sides=(480, 640)),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One question about one picture."""

    image: str  # relative to the mix's folder
    question: str
    answer: str

    def messages(self) -> list[dict[str, str]]:
        """Text with a mark where the picture stands, as LLaMA-Factory, ms-swift, Automodel and Foveate read it."""
        return [{"role": "user", "content": f"<image>{self.question}"}, {"role": "assistant", "content": self.answer}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A drawn picture and what can be asked about it."""

    image: Pillow.Image
    facts: tuple[tuple[str, str], ...]  # (question, answer)


def draw_picture(draw: random.Random, sides: tuple[int, int]) -> Picture:
    """A few shapes on a plain ground."""
    width, height = draw.randint(*sides), draw.randint(*sides)
    image = Pillow.new("RGB", (width, height), tuple(draw.randint(190, 255) for _ in range(3)))
    canvas, facts = ImageDraw.Draw(image), []
    colours = draw.sample(sorted(COLOURS), 3)
    for place, colour in zip(PLACES, colours, strict=True):
        shape, radius = draw.choice(SHAPES), draw.randint(width // 12, width // 7)
        x = (PLACES.index(place) * 2 + 1) * width // 6
        y = draw.randint(radius, height - radius)
        box = (x - radius, y - radius, x + radius, y + radius)
        if shape == "disc":
            canvas.ellipse(box, fill=COLOURS[colour])
        elif shape == "block":
            canvas.rectangle(box, fill=COLOURS[colour])
        else:
            canvas.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=COLOURS[colour])
        facts += [
            (f"What color is the shape at the {place}?", colour),
            (f"What shape is at the {place}?", shape),
            (f"Where is the {colour} shape?", f"at the {place}"),
            (f"Describe the shape at the {place}.", f"a {colour} {shape}"),
            (f"What is {colour} here?", f"the {shape} at the {place}"),
        ]
    draw.shuffle(facts)
    return Picture(image=image, facts=tuple(facts))


def words(draw: random.Random, mix: Mix) -> str:
    """The text before a question, empty where the mix has none."""
    if mix.median_words == 0:
        return ""
    if mix.spread == 0:
        count = draw.randint(mix.median_words // 2, mix.median_words * 3 // 2)
    else:
        count = min(mix.most_words, max(1, round(draw.lognormvariate(math.log(mix.median_words), mix.spread))))
    return " ".join(draw.choice(WORDS) for _ in range(count)) + ". "


def questions_of(draw: random.Random, mean: float) -> int:
    """Questions about one picture: the mean's whole part, one more as often as its fraction says."""
    whole = int(mean)
    return whole + (draw.random() < mean - whole)


def records(mix: Mix, count: int, folder: Path, *, seed: int = 0) -> list[Record]:
    """Draws the pictures into `folder/images` and returns the records, those about a picture side by side."""
    draw, made = random.Random(f"{mix.name} {seed}"), []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    number = 0
    while len(made) < count:
        picture, number = draw_picture(draw, mix.sides), number + 1
        name = f"images/{number:05d}.{'png' if number % 2 else 'jpg'}"
        picture.image.save(folder / name, **({} if number % 2 else {"quality": 90}))
        for question, answer in picture.facts[: questions_of(draw, mix.questions)]:
            made.append(Record(image=name, question=words(draw, mix) + question, answer=answer))
    return made[:count]


def for_plan(made: list[Record], seed: int = 0) -> list[Record]:
    """The order in which a file must hold the records for Foveate's first epoch to visit them as given."""
    placed: list[Record | None] = [None] * len(made)
    for place, record in enumerate(made):
        placed[permuted(place, len(made), seed, 0)] = record
    return [record for record in placed if record is not None]


def write(mix: Mix, folder: Path, *, count: int, seed: int = 0) -> list[Record]:
    """Write all formats of the mix; returns the records in the order of training."""
    made = records(mix, count, folder, seed=seed)
    _dump(folder / "records.jsonl", _lines(made))
    _dump(folder / "foveate.jsonl", _lines(for_plan(made)))
    apart = list(made)
    random.Random(seed).shuffle(apart)
    _dump(folder / "apart.jsonl", _lines(apart))
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    entry = {"file_name": "records.jsonl", "formatting": "sharegpt", "columns": columns, "tags": tags, "media_dir": str(folder)}
    (folder / "dataset_info.json").write_text(json.dumps({"records": entry}, indent=1), encoding="utf-8")
    _parquet(made, folder)
    return made


def _lines(made: list[Record]) -> Iterator[dict[str, Any]]:
    return ({"messages": record.messages(), "images": [record.image]} for record in made)


def _dump(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _parquet(made: list[Record], folder: Path) -> None:
    """TRL's prompt and completion, with paths that `datasets` opens as it reads them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    part = pa.struct({"type": pa.string(), "text": pa.string()})
    turns = pa.list_(pa.struct({"role": pa.string(), "content": pa.list_(part)}))
    table = pa.table(
        {
            "length": pa.array([len(record.question) for record in made], pa.int64()),  # by which its sampler groups
            "prompt": pa.array([_prompt(record) for record in made], turns),
            "completion": pa.array([_completion(record) for record in made], turns),
            "images": pa.array(
                [[{"bytes": None, "path": str((folder / record.image).resolve())}] for record in made],
                pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})),
            ),
        }
    )
    features = {
        "length": {"dtype": "int64", "_type": "Value"},
        "prompt": _turn_features(),
        "completion": _turn_features(),
        "images": {"feature": {"_type": "Image"}, "_type": "List"},
    }
    kept = {"huggingface": json.dumps({"info": {"features": features}})}
    (folder / "trl").mkdir(exist_ok=True)
    pq.write_table(table.replace_schema_metadata(kept), folder / "trl" / "train.parquet")


def _turn_features() -> dict[str, Any]:
    text = {"dtype": "string", "_type": "Value"}
    return {"feature": {"role": text, "content": {"feature": {"type": text, "text": text}, "_type": "List"}}, "_type": "List"}


def _prompt(record: Record) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": record.question}]}]


def _completion(record: Record) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": [{"type": "text", "text": record.answer}]}]
