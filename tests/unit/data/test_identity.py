"""What tells one medium from another."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from foveate.data.media.identity import identity, same_media_key
from foveate.errors import DataError
from foveate.types import Audio, Conversation, Image, Media, Message, Text, Video


def about(*media: Media) -> Conversation:
    return Conversation(messages=(Message(role="user", parts=(*media, Text(text="what?"))),))


def test_content_counts_and_not_where_it_lies(tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    one.write_bytes(b"pixels")
    two.write_bytes(b"pixels")
    assert identity(about(Image(path=one))) == identity(about(Image(path=two))) == identity(about(Image(data=b"pixels")))
    assert same_media_key(about(Image(path=one))) != same_media_key(about(Image(path=two)))
    assert identity(about(Image(data=b"other"))) != identity(about(Image(path=one)))
    assert len(identity(about(Image(path=one), Audio(data=b"x"), Image(path=two)))) == 3


@pytest.mark.parametrize(
    ("medium", "changes"),
    [
        (Image(data=b"x"), [{"max_pixels": 100}]),
        (Video(data=b"x"), [{"num_frames": 4}, {"fps": 4.0}, {"start_s": 4.0}, {"end_s": 4.0}, {"frames_fps": 4.0}]),
        (Video(frames=(Image(data=b"x"),)), [{"frames": (Image(data=b"x", max_pixels=9),)}, {"frames": (Image(data=b"x"),) * 2}]),
    ],
)
def test_every_setting_counts(medium: Media, changes: list[dict]) -> None:
    talks = [about(medium), *(about(replace(medium, **change)) for change in changes), about(Audio(data=b"x"))]
    for key in (identity, same_media_key):
        assert len({key(talk) for talk in talks}) == len(talks)


def test_a_file_that_changes_is_another_medium(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    before = identity(about(Image(path=path)))
    assert identity(about(Image(path=path))) == before
    path.write_bytes(b"behind")  # as long as before
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    assert identity(about(Image(path=path))) != before


def test_a_known_file_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    before, state = identity(about(Image(path=path))), path.stat()
    path.write_bytes(b"behind")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert identity(about(Image(path=path))) == before


def test_a_folder_of_frames_is_its_pictures(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"frame %d" % number)
    folder, frames = about(Video(path=tmp_path)), tuple(Image(data=b"frame %d" % number) for number in range(3))
    assert identity(folder) == identity(about(Video(frames=frames)))
    before = identity(folder)
    (tmp_path / "2.png").write_bytes(b"another")
    assert identity(folder) != before


def test_a_missing_file_is_refused_as_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        identity(about(Image(path=tmp_path / "none.png")))
    assert caught.value.reason == "image_missing"
    assert same_media_key(about(Image(path=tmp_path / "none.png")))
