"""Held-out records that are trained on are counted, by content and not by name."""

from __future__ import annotations

from foveate.data.mixture import build_mixture
from foveate.data.overlap import Overlap, find_overlap
from tests.unit.data.build import corner_picture, encoded, jsonl, noise_picture, section


def test_the_same_record_and_the_same_picture_are_counted(tmp_path):
    for name, picture in (("a", corner_picture()), ("copy_of_a", corner_picture()), ("b", noise_picture()), ("c", noise_picture(8, 8))):
        (tmp_path / f"{name}.png").write_bytes(encoded(picture, "PNG"))
    trained = [{"image": name, "question": "?", "answer": "x"} for name in ("a.png", "b.png", "none.png")] + [
        {"question": "1+1", "answer": "2"}
    ]
    held = [
        {"image": "copy_of_a.png", "question": "?", "answer": "x"},  # the same but for the file's name
        {"image": "b.png", "question": "another?", "answer": "y"},  # another question about a picture that is trained on
        {"image": "c.png", "question": "?", "answer": "x"},
        {"question": "1+1", "answer": "2"},
        {"question": "1+1", "answer": ""},  # can't be used, so not compared
    ]
    train = build_mixture([section(path=jsonl(tmp_path / "t.jsonl", trained), weight=2.0)])
    held_out = build_mixture([section(path=jsonl(tmp_path / "e.jsonl", held))])
    found = find_overlap(train, held_out)
    assert (found.compared, found.same, found.same_media) == (4, 2, 2)
    assert "e.jsonl row 0 and" in found.example and "t.jsonl row 0" in found.example and "2 are trained on as they are" in found.describe()
    assert find_overlap(train, held_out, most=0) == Overlap(compared=0, same=0, same_media=0)


def test_nothing_shared_says_nothing(tmp_path):
    train = build_mixture([section(path=jsonl(tmp_path / "t.jsonl", [{"question": "a", "answer": "b"}]))])
    held_out = build_mixture([section(path=jsonl(tmp_path / "e.jsonl", [{"question": "c", "answer": "b"}]))])
    assert find_overlap(train, held_out).describe() == ""
