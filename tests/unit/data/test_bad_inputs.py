"""Every bad input that the data layer answers for: a stable reason, a message that names the place, and a fix.

Numbers are those of the list of bad inputs that the design promises an answer to.
"""

from __future__ import annotations

import codecs
import io
import json

import numpy as np
import pytest
from PIL import Image as Pillow

from foveate.config.media import MediaSection
from foveate.data.mixture import build_mixture
from foveate.data.scan import scan
from foveate.errors import DataError
from tests.unit.data.build import RULES, clip, corner_picture, encoded, jsonl, m4a, noise_picture, qa_rows, section, sound

QA = {"question": "?", "answer": "x"}
CUT = encoded(noise_picture(), "JPEG")[:3000]
GIF = encoded(corner_picture(), "GIF", save_all=True, append_images=[Pillow.new("RGB", (12, 8))])


def nan_sound() -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0, np.nan], dtype=np.float32), 16_000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def verdict(tmp_path, record, limit: int = RULES.max_image_pixels):
    """What a decoding scan says of one record written as a line of JSON."""
    path = tmp_path / "data.jsonl"
    path.write_bytes(record if isinstance(record, bytes) else json.dumps(record).encode() + b"\n")
    (only,) = scan(build_mixture([section(path=path, format="auto")]), level="decode", rules=MediaSection(max_image_pixels=limit))
    return only


QUARANTINED = [
    (1, "image", None, "image_missing", "no such image"),
    (2, "image", b"", "image_empty", "0 bytes"),
    (3, "image", CUT, "image_truncated", "truncated"),
    (5, "image", b"<!DOCTYPE html><html><body>404", "image_not_image", "an HTML page"),
    (6, "image", encoded(Pillow.new("1", (4000, 4000)), "PNG"), "image_too_large", "16,000,000 pixels"),
    (10, "image", GIF, "image_animated", "2 frames"),
    (14, "video", "m4a", "video_no_stream", "no pictures"),
    (13, "video", "cut", "video_corrupt", "track"),
    (18, "audio", sound(seconds=0), "audio_empty", "no samples"),
    (18, "audio", nan_sound(), "audio_not_finite", "NaN"),
]


@pytest.mark.parametrize(("number", "kind", "content", "reason", "text"), QUARANTINED, ids=[f"{row[0]}-{row[3]}" for row in QUARANTINED])
def test_media_that_are_quarantined(tmp_path, number, kind, content, reason, text):
    path = tmp_path / f"medium.{'jpg' if kind == 'image' else 'mp4'}"
    if content == "m4a":
        m4a(tmp_path / "a.m4a").rename(path)
    elif content == "cut":
        path.write_bytes(clip(path).read_bytes()[:900])
    elif content is not None:
        path.write_bytes(content)
    only = verdict(tmp_path, QA | {kind: path.name})
    assert only.error is not None and only.error.reason == reason, number
    assert text in str(only.error) and str(path) in str(only.error) and only.error.fix
    assert only.origin.row == 0 and only.origin.file.endswith("data.jsonl")


RECORDS = [
    (21, b'{"question": "?", "answer": }\n' + json.dumps(QA).encode() + b"\n", "bad_json", "data.jsonl:1:29"),
    (22, b'{"question": "\xff", "answer": "x"}\n' + json.dumps(QA).encode() + b"\n", "bad_utf8", "byte 14"),
    (23, QA | {"answer": None}, "missing_field", "'answer'"),
    (25, {"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]}, "placeholder_mismatch", "0 images"),
    (27, {"messages": [{"role": "assistant", "content": "x"}, {"role": "user", "content": "?"}]}, "role_order", "at the beginning"),
    (28, QA | {"answer": " "}, "empty_answer", "empty"),
    (28, {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": None}]}, "empty_answer", "empty"),
    (
        33,
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "x", "train": False}]},
        "no_trained_turn",
        "trained",
    ),
]


@pytest.mark.parametrize(("number", "record", "reason", "text"), RECORDS)
def test_records_that_are_quarantined(tmp_path, number, record, reason, text):
    path = tmp_path / "data.jsonl"
    path.write_bytes(record if isinstance(record, bytes) else json.dumps(record).encode() + b"\n")
    first = next(scan(build_mixture([section(path=path)]), level="headers", rules=RULES))
    assert first.error is not None and first.error.reason == reason, number
    assert text in str(first.error) and first.error.where.startswith((f"{path}:1", f"{path} row 0")) and first.error.fix


def test_4_a_wrong_extension_is_read_and_counted(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(corner_picture(), "WEBP"))
    only = verdict(tmp_path, QA | {"image": "a.jpg"})
    assert only.error is None and only.wrong_suffix == 1


def test_17_another_sample_rate_is_no_error(tmp_path):
    (tmp_path / "a.wav").write_bytes(sound(rate_hz=8_000))
    assert verdict(tmp_path, QA | {"audio": "a.wav"}).error is None


def test_22_byte_order_mark_and_crlf_are_accepted(tmp_path):
    assert verdict(tmp_path, codecs.BOM_UTF8 + json.dumps(QA).encode() + b"\r\n").error is None


def test_24_arrow_fills_with_nulls_and_they_are_stripped(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.png").write_bytes(encoded(corner_picture(), "PNG"))
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "?"}]
    rows = [{"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": "x"}]}]}]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert pq.read_table(path).to_pylist()[0]["messages"][0]["content"][0] == {"type": "image", "image": "a.png", "text": None}
    conversation = build_mixture([section(path=path)]).conversation(0)
    assert len(conversation.media) == 1 and conversation.messages[0].text == "?"


def test_26_a_literal_tag_in_text_stays_text(tmp_path):
    only = verdict(tmp_path, QA | {"question": "What is <image> in HTML?"})
    assert only.conversation.media == () and only.conversation.messages[0].text == "What is <image> in HTML?"


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_31_an_empty_set_stops_at_once(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        build_mixture([section(path=path)])
    assert caught.value.reason == "source_empty" and str(path) in str(caught.value) and caught.value.fix


def test_23_an_unknown_column_names_the_nearest(tmp_path):
    with pytest.raises(DataError, match="did you mean 'question'") as caught:
        build_mixture([section(path=jsonl(tmp_path / "a.jsonl", qa_rows(1)), columns={"question": "questoin"})])
    assert caught.value.reason == "unknown_column"


@pytest.mark.parametrize(
    ("number", "package", "kind", "content", "fix"),
    [
        (11, "pillow_heif", "image", b"\0\0\0\x18ftypheic" + bytes(100), "pip install"),
        (20, "soundfile", "audio", sound(), "foveate[audio]"), (20, "av", "video", b"\0\0\0\x18ftypisom" + bytes(100), "foveate[video]"),
    ],
)  # fmt: skip
def test_a_missing_package_stops_the_run(tmp_path, monkeypatch, number, package, kind, content, fix):
    from foveate.errors import FoveateError

    monkeypatch.setitem(__import__("sys").modules, package, None)  # what importlib does for a package known to be absent
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(FoveateError) as caught:
        verdict(tmp_path, QA | {kind: "a.bin"})
    assert not isinstance(caught.value, DataError) and fix in caught.value.fix, number
