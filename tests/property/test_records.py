"""Random records: each becomes the conversation that it says, or a DataError; nothing is dropped, and nothing else is ever raised."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foveate.config.data import SourceSection
from foveate.data.adapters import FORMATS
from foveate.data.mixture import build_mixture
from foveate.data.scan import scan
from foveate.errors import DataError
from foveate.types import Text
from tests.unit.data.build import RULES, corner_picture, encoded

SETTINGS = {"deadline": 5000, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}
WORDS = st.sampled_from(
    ["red", "What?", "", " ", "<image>", "<video>", "<audio>", "a.png", "gone.png", "<|im_end|>", "\ud83d", "\0", "é", "0"]
)
SCALARS = st.one_of(WORDS, st.text(max_size=8), st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.binary(max_size=4).map(str))
KEYS = st.sampled_from(
    [
        "role",
        "content",
        "type",
        "text",
        "image",
        "image_url",
        "url",
        "path",
        "bytes",
        "from",
        "value",
        "train",
        "weight",
        "question",
        "answer",
        "answers",
        "images",
        "messages",
        "conversations",
        "caption",
        "choices",
        "bbox",
        "objects",
        "history",
        "system",
        "video",
        "label",
    ]
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)
ROLES = st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", "asistant", None, 3])
TURNS = st.lists(st.fixed_dictionaries({}, optional={"role": ROLES, "from": ROLES, "content": VALUES, "value": VALUES}), max_size=5)
GARBAGE = st.fixed_dictionaries(
    {},
    optional={
        "messages": TURNS | VALUES,
        "conversations": TURNS | VALUES,
        "image": VALUES,
        "images": VALUES,
        "question": VALUES,
        "answer": VALUES,
        "answers": VALUES,
        "system": VALUES,
        "caption": VALUES,
        "choices": VALUES,
        "objects": VALUES,
        "input": VALUES,
        "instruction": VALUES,
        "output": VALUES,
        "audio": VALUES,
        "transcription": VALUES,
        "ground_truth": VALUES,
    },
)


def folder_with(rows: list[dict], folder: Path) -> Path:
    (folder / "a.png").write_bytes(encoded(corner_picture(), "PNG"))
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@settings(max_examples=350, **SETTINGS)
@given(rows=st.lists(GARBAGE, min_size=10, max_size=10), form=st.sampled_from(["auto", *FORMATS]))
def test_garbage_is_used_or_named(rows, form):
    """3,500 records: whatever a format makes of them, used + bad is what was read, and each bad one has its reason and its place."""
    with tempfile.TemporaryDirectory() as name:
        path = folder_with(rows, Path(name))
        try:
            mixture = build_mixture([SourceSection(path=str(path), format=form)])
        except DataError as error:  # the columns do not fit the format: said at once, with the fix
            assert error.reason and error.fix
            return
        verdicts = list(scan(mixture, level="headers", rules=RULES))
        assert len(verdicts) == len(rows)
        for number, verdict in enumerate(verdicts):
            assert (verdict.conversation is None) != (verdict.error is None)
            assert verdict.origin.row == number
            if verdict.error is not None:
                assert verdict.error.reason and verdict.error.fix, verdict.error


SAID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda text: text.strip() and "<" not in text)
PIECES = st.lists(st.just(None) | SAID, min_size=1, max_size=4).filter(lambda pieces: any(pieces))  # None: the image
DIALOGUES = st.lists(st.tuples(PIECES, SAID), min_size=1, max_size=3)


def joined(pieces: list[str | None]) -> list[str | None]:
    """Neighbouring texts as one, as a tagged string has them; line breaks beside a tag belong to the tag."""
    text = "".join("<image>" if piece is None else piece for piece in pieces)
    parts: list[str | None] = []
    for number, piece in enumerate(text.split("<image>")):
        if number:
            parts.append(None)
        piece = piece.lstrip("\n") if number else piece
        piece = piece.rstrip("\n") if number < text.count("<image>") else piece
        parts += [piece] if piece else []
    return parts


def as_messages(dialogue) -> dict:
    messages = []
    for pieces, answer in dialogue:
        content = [{"type": "image", "image": "a.png"} if piece is None else {"type": "text", "text": piece} for piece in pieces]
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def as_tagged(dialogue) -> dict:
    turns, images = [], []
    for pieces, answer in dialogue:
        images += ["a.png"] * pieces.count(None)
        turns.append({"role": "user", "content": "".join("<image>" if piece is None else piece for piece in pieces)})
        turns.append({"role": "assistant", "content": answer})
    return {"messages": turns, "images": images}


def as_sharegpt(dialogue) -> dict:
    tagged = as_tagged(dialogue)
    names = {"user": "human", "assistant": "gpt"}
    return {
        "conversations": [{"from": names[turn["role"]], "value": turn["content"]} for turn in tagged["messages"]],
        "image": tagged["images"],
    }


def parts_of(conversation, role: str) -> list[list[str | None]]:
    found = [message for message in conversation.messages if message.role == role]
    return [[part.text if isinstance(part, Text) else None for part in message.parts] for message in found]


@settings(max_examples=500, **SETTINGS)
@given(dialogue=DIALOGUES)
def test_every_format_says_what_the_record_says(dialogue):
    """1,500 records, 500 dialogues in three formats: every text and image arrives, in its place."""
    with tempfile.TemporaryDirectory() as name:
        for form, render, expected in (
            ("messages", as_messages, [pieces for pieces, _ in dialogue]),
            ("messages", as_tagged, [joined(pieces) for pieces, _ in dialogue]),
            ("sharegpt", as_sharegpt, [joined(pieces) for pieces, _ in dialogue]),
        ):
            mixture = build_mixture([SourceSection(path=str(folder_with([render(dialogue)], Path(name))), format=form)])
            try:
                conversation = mixture.conversation(0)
            except DataError as error:  # once the breaks around a tag are gone, nothing may be left to ask
                assert error.reason == "empty_question" and any(not parts for parts in expected), error
                continue
            assert parts_of(conversation, "user") == expected
            assert [message.text for message in conversation.messages if message.trained] == [answer for _, answer in dialogue]
