"""Records of boxes, choices, receipts and instructions that are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.catalogue.case import Accepted, BadRecord, Row, row

IMAGE = "images/good-0.png"  # 48 wide, 40 high


def boxed(*boxes: Any, names: list[str] | None = None, **more: Any) -> Callable[[Path], Row]:
    names = ["disc"] * len(boxes) if names is None else names
    return row(image=IMAGE, objects={"bbox": list(boxes), "category": names}, **more)


def asked(answer: Any, choices: Any = ("red", "blue")) -> Callable[[Path], Row]:
    return row(question="Which?", choices=list(choices) if isinstance(choices, tuple) else choices, answer=answer)


def read(truth: str) -> Callable[[Path], Row]:
    return row(image=IMAGE, ground_truth=truth)


def outside_root(folder: Path) -> Row:
    (folder / "secret.png").write_bytes(b"")
    return {"image": "../secret.png", "question": "What?", "answer": "red"}


def link_out(folder: Path) -> Row:
    """A link inside the root that leads out of it."""
    (folder / "outside").mkdir(exist_ok=True)
    (folder / "images/link").symlink_to(folder / "outside")
    return {"image": "link/1.png", "question": "What?", "answer": "red"}


BAD = [
    BadRecord(source="detection", title="box outside the image", reason="box_outside", says="outside", make=boxed([30.0, 4.0, 60.0, 20.0])),
    BadRecord(source="detection", title="box upside down", reason="bad_box", says="inverted", make=boxed([20.0, 4.0, 8.0, 20.0])),
    BadRecord(source="detection", title="box of three numbers", reason="bad_box", says="no box", make=boxed([1.0, 2.0, 3.0])),
    BadRecord(source="detection", title="box with text in it", reason="bad_box", says="wide", make=boxed([1.0, 2.0, "wide", 4.0])),
    BadRecord(
        source="detection",
        title="more boxes than names",
        reason="bad_label",
        says="2 boxes, but 1",
        make=boxed([1, 2, 9, 9], [2, 3, 9, 9], names=["disc"]),
    ),
    BadRecord(
        source="detection",
        title="width and height of another picture",
        reason="box_frame",
        says="",
        make=boxed([1, 2, 9, 9], width=100, height=30),
    ),
    BadRecord(source="choice", title="answer beyond the choices", reason="bad_choice", says="", make=asked(5)),
    BadRecord(source="choice", title="answer that is no choice", reason="bad_choice", says="", make=asked("green")),
    BadRecord(source="choice", title="a single choice", reason="bad_choice", says="1 choices", make=asked(0, ("red",))),
    BadRecord(source="choice", title="an empty choice", reason="bad_choice", says="empty", make=asked(0, ("red", " "))),
    BadRecord(source="choice", title="choices null", reason="missing_field", says="'choices'", make=asked(0, None)),
    BadRecord(source="ocr", title="ground truth that is not JSON", reason="bad_json", says="not JSON", make=read("{total: 3}")),
    BadRecord(source="ocr", title="ground truth with NaN", reason="bad_json", says="NaN", make=read('{"total": NaN}')),
    BadRecord(
        source="alpaca",
        title="instruction null",
        reason="missing_field",
        says="'instruction'",
        make=row(instruction=None, input=None, output="red"),
    ),
    BadRecord(
        source="alpaca",
        title="history that is no list of pairs",
        reason="wrong_type",
        says="",
        make=row(instruction="Go on.", input="", output="red", history=["a"]),
    ),
    BadRecord(source="confined", title="path that leaves the media root", reason="media_outside", says="media_root", make=outside_root),
    BadRecord(source="confined", title="link that leaves the media root", reason="media_outside", says="media_root", make=link_out),
    BadRecord(
        source="confined",
        title="absolute path outside the media root",
        reason="media_outside",
        says="media_root",
        make=row(image="/etc/passwd", question="What?", answer="red"),
    ),
]
ODD = [
    Accepted(source="detection", title="a picture without objects", make=boxed()),
    Accepted(source="choice", title="the right choice by its letter", make=asked("B")),
    Accepted(source="ocr", title="ground truth of a list", make=read(json.dumps([{"total": "3"}]))),
]
GOOD: dict[str, Row] = {
    "detection": {"image": IMAGE, "objects": {"bbox": [[2.0, 2.0, 20.0, 16.0]], "category": ["disc"]}},
    "choice": {"question": "Which?", "choices": ["red", "blue"], "answer": 0},
    "ocr": {"image": IMAGE, "ground_truth": '{"total": "3"}'},
    "alpaca": {"instruction": "Which?", "input": "red or blue", "output": "red", "history": []},
    "confined": {"image": "good-0.png", "question": "What is it?", "answer": "red"},
}
# What the source says in the recipe beside its path.
SETTINGS: dict[str, dict[str, str]] = {"detection": {"boxes_in": "xyxy"}, "confined": {"media_root": "images"}}
