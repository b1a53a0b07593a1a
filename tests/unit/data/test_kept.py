"""Decoded media from the disk: the same values as decoding gives, and nothing else, whatever happens to files and folder."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.config.media import MediaSection
from foveate.data.media import even_frames, load_audio, load_video, open_pixels
from foveate.data.media.kept import DecodedMedia, decoded_media
from foveate.errors import DataError
from foveate.types import Audio, Image, Video
from tests.unit.data.build import clip, encoded, noise_picture, sound


def rules_of(folder: Path, **fields: Any) -> MediaSection:
    return MediaSection(**({"cache_decoded": "disk", "cache_folder": str(folder / "kept"), "cache_gb": 0.01} | fields))


@pytest.fixture
def kept(tmp_path: Path) -> DecodedMedia:
    return decoded_media(rules_of(tmp_path))


@pytest.fixture
def photo(tmp_path: Path) -> Image:
    return jpeg(tmp_path / "a.jpg")


def jpeg(path: Path, *, quality: int = 80, max_pixels: int | None = 500) -> Image:
    path.write_bytes(encoded(noise_picture(64, 48), "JPEG", quality=quality))
    return Image(path=path, max_pixels=max_pixels)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "kept").rglob("*.tensors"))


def done(kept: DecodedMedia) -> tuple[int, int, int]:
    return kept.counts.found, kept.counts.missed, kept.counts.written


def choose(count: int) -> Callable:
    return lambda info: even_frames(info.frames, count)


def fresh(image: Image) -> np.ndarray:
    return open_pixels(image, rules=MediaSection())


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other)


def test_off_keeps_nothing() -> None:
    assert decoded_media(MediaSection()) is None


def test_a_photograph_is_decoded_once_and_the_same_to_the_last_bit(kept: DecodedMedia, photo: Image) -> None:
    first, second = kept.pixels(photo), pickle.loads(pickle.dumps(kept)).pixels(photo)
    assert done(kept) == (0, 1, 1)
    assert same(first, fresh(photo)) and same(second, first)
    assert second.flags.writeable
    copy = photo.path.with_name("copy.jpg")
    copy.write_bytes(photo.path.read_bytes())
    assert same(kept.pixels(replace(photo, path=copy)), first)
    assert same(kept.pixels(Image(data=photo.path.read_bytes(), max_pixels=500)), first)
    assert done(kept) == (2, 1, 1)


@pytest.mark.parametrize(
    ("name", "kept_too", "options"),
    [("a.mp3", True, {"form": "MP3"}), ("a.flac", True, {"form": "FLAC"}), ("a.wav", True, {"rate_hz": 8_000}), ("b.wav", False, {})],
)
def test_sounds_are_kept_where_they_are_compressed_or_resampled(
    kept: DecodedMedia, tmp_path: Path, name: str, kept_too: bool, options: dict[str, Any]
) -> None:
    audio = Audio(path=tmp_path / name)
    audio.path.write_bytes(sound(**options))
    wanted = load_audio(audio, 16_000, rules=MediaSection())
    assert all(same(kept.samples(audio, 16_000), wanted) for _ in range(2))
    assert done(kept) == ((1, 1, 1) if kept_too else (0, 0, 0))
    assert len(kept.samples(audio, 24_000)) == round(len(wanted) * 1.5)


def test_a_clips_frames_are_kept_by_what_chooses_them(kept: DecodedMedia, tmp_path: Path) -> None:
    video = Video(path=clip(tmp_path / "a.mp4"))
    for count in (3, 5, 3, 5):
        frames, about = kept.frames(video, choose(count), chosen_by=count)
        wanted, told = load_video(video, rules=MediaSection(), choose=choose(count))
        assert same(frames, wanted) and about == told
    assert done(kept) == (2, 2, 2)


def test_a_folder_of_frames_is_a_clip_too(kept: DecodedMedia, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(4):
        jpeg(tmp_path / "frames" / f"{number}.jpg", quality=60 + number)
    video = Video(path=tmp_path / "frames")
    wanted, told = load_video(video, rules=MediaSection(), choose=choose(3))
    for _ in range(2):
        frames, about = kept.frames(video, choose(3), chosen_by=3)
        assert same(frames, wanted) and about == told
    jpeg(tmp_path / "frames" / "2.jpg", quality=20)
    assert not same(kept.frames(video, choose(3), chosen_by=3)[0], wanted)


def test_what_is_not_shrunk_is_not_kept(kept: DecodedMedia, photo: Image) -> None:
    for most in (None, 64 * 48):
        image = replace(photo, max_pixels=most)
        assert same(kept.pixels(image), fresh(image))
    assert done(kept) == (0, 0, 0)


def test_another_size_another_file_and_other_rules_are_other_entries(kept: DecodedMedia, photo: Image, tmp_path: Path) -> None:
    kept.pixels(photo)
    smaller = replace(photo, max_pixels=400)
    assert same(kept.pixels(smaller), fresh(smaller))
    state = photo.path.stat()
    jpeg(photo.path, quality=30)
    os.utime(photo.path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert same(kept.pixels(photo), fresh(photo))
    assert done(kept) == (0, 3, 3)
    with pytest.raises(DataError, match="the limit is 100") as caught:
        decoded_media(rules_of(tmp_path, max_image_pixels=100)).pixels(photo)
    assert caught.value.reason == "image_too_large"


def test_a_file_that_is_gone_or_cut_is_an_error_as_ever(kept: DecodedMedia, photo: Image) -> None:
    kept.pixels(photo)
    photo.path.write_bytes(photo.path.read_bytes()[:-200])
    with pytest.raises(DataError) as caught:
        kept.pixels(photo)
    assert caught.value.reason == "image_truncated"
    photo.path.unlink()
    with pytest.raises(DataError) as caught:
        kept.pixels(photo)
    assert caught.value.reason == "image_missing"
    assert kept.counts.written == 1


def test_a_flipped_byte_is_decoded_anew_counted_and_mended(kept: DecodedMedia, photo: Image, tmp_path: Path) -> None:
    wanted = kept.pixels(photo)
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert same(kept.pixels(photo), wanted) and kept.counts.damaged == 1
    assert same(kept.pixels(photo), wanted)
    assert done(kept) == (1, 2, 2)


def test_what_was_used_longest_ago_goes_and_the_folder_stays_within_its_limit(tmp_path: Path) -> None:
    kept = decoded_media(rules_of(tmp_path, cache_gb=20e-6))
    images = [jpeg(tmp_path / f"{number}.jpg", quality=20 + number) for number in range(20)]
    for image in images:
        assert same(kept.pixels(image), fresh(image))
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 20_000
    assert kept.counts.evicted > 0
    kept.pixels(images[-1])
    assert kept.counts.found == 1


def test_a_folder_that_can_not_be_written_costs_a_warning_and_no_medium(tmp_path: Path, photo: Image) -> None:
    (tmp_path / "kept").write_text("no folder")
    kept = decoded_media(rules_of(tmp_path))
    with pytest.warns(UserWarning, match="nothing more is kept in"):
        assert same(kept.pixels(photo), fresh(photo))
    assert same(kept.pixels(photo), fresh(photo))
    assert done(kept) == (0, 2, 0)
