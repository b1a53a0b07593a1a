"""Every format of records, from a file to tokens: what is trained on is the answer, on a real processor. Needs torch."""

from __future__ import annotations

import json

import pytest

from foveate.data.mixture import build_mixture
from tests.unit.data.build import corner_picture, encoded, jsonl, section, sound
from tests.unit.encode.talk import encoder_of, trained

TURNS = [{"role": "user", "content": "<image>what is it?"}, {"role": "assistant", "content": "a red circle"}]
PARTS = [
    {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "what is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a red circle"}]},
]
BOXES = {"ref": ["circle"], "bbox": [[6, 0, 12, 4]]}
RECORDS = {
    "messages": ({"messages": TURNS, "images": ["a.png"]}, {}, ["a red circle"]),
    "automodel": ({"conversation": PARTS}, {}, ["a red circle"]),
    "grounding": (
        {"messages": [TURNS[0], {"role": "assistant", "content": "<ref-object> <bbox>"}], "images": ["a.png"], "objects": BOXES}, {},
        ["circle [500, 0, 1000, 500]"],
    ),
    "sharegpt": (
        {"image": "a.png", "conversations": [{"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "red"}]}, {}, ["red"],
    ),
    "alpaca": (
        {"instruction": "name it", "input": "<image>", "output": "circle", "history": [["hi", "yes"]], "images": ["a.png"]}, {},
        ["yes", "circle"],
    ),
    "qa": ({"image": "a.png", "question": "what?", "answer": "red"}, {}, ["red"]),
    "trl": ({"images": ["a.png"], "prompt": [PARTS[0] | {"content": "what?"}], "completion": [TURNS[1]]}, {}, ["a red circle"]),
    "multiple_choice": ({"image": "a.png", "question": "what?", "choices": ["red", "blue"], "answer": 1}, {}, ["B"]),
    "caption": ({"image": "a.png", "caption": "a red circle"}, {}, ["a red circle"]),
    "ocr": ({"image": "a.png", "ground_truth": json.dumps({"gt_parse": {"total": 1.5}})}, {}, ['{"total": 1.5}']),
    "detection": (
        {"image": "a.png", "objects": {"bbox": [[6, 0, 6, 4]], "category": ["circle"]}}, {"boxes_in": "xywh", "boxes": "pixels"},
        ['[{"bbox_2d": [6, 0, 12, 4], "label": "circle"}]'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_with_a_picture(tmp_path, name):
    row, fields, answers = RECORDS[name]
    (tmp_path / "a.png").write_bytes(encoded(corner_picture(), "PNG"))
    conversation = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", [row]), **fields)]).conversation(0)
    encoder = encoder_of("smolvlm")
    example = encoder(conversation)
    assert example.kinds == {"image"} and encoder.length(conversation).tokens == len(example.input_ids)
    assert [text.removesuffix("\n").removesuffix("<end_of_utterance>").strip() for text in trained(encoder, example)] == answers


@pytest.mark.parametrize(
    "row",
    [
        {"audio": "a.wav", "transcription": "one two"},
        {"audio": "a.wav", "conversation": [{"role": "user", "content": "<|audio_1|>What?"}, {"role": "assistant", "content": "one two"}]},
    ],
)
def test_a_record_with_a_sound(tmp_path, row):
    (tmp_path / "a.wav").write_bytes(sound())
    conversation = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", [row]))]).conversation(0)
    encoder = encoder_of("qwen2_audio")
    example = encoder(conversation)
    assert example.kinds == {"audio"}
    assert [text.removesuffix("\n").removesuffix("<|im_end|>") for text in trained(encoder, example)] == ["one two"]
