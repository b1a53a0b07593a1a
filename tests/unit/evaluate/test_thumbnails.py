"""Thumbnails: small, written once, one for each medium of any kind."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from foveate.config.media import MediaSection
from foveate.evaluate.thumbnails import save_thumbnails, waveform
from foveate.types import Audio, Conversation, Image, Message, Text, Video


def conversation(*media) -> Conversation:
    return Conversation(messages=(Message(role="user", parts=(*media, Text(text="?"))),))


def png(pixels: np.ndarray) -> Image:
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, "PNG")
    return Image(data=stream.getvalue())


def test_drawings_become_png_and_photographs_jpeg(tmp_path):
    drawing = np.full((400, 900, 3), 255, np.uint8)
    drawing[100:200, 100:300] = (200, 0, 0)
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    paths = save_thumbnails(tmp_path, 7, conversation(png(drawing), png(noise)), rules=MediaSection(max_image_pixels=10**7))
    assert paths == ("eval/media/000007_0.png", "eval/media/000007_1.jpg")
    with Pillow.open(tmp_path / paths[0]) as picture:
        assert picture.size == (320, 142)


def test_an_existing_thumbnail_is_kept(tmp_path):
    talk = conversation(png(np.zeros((8, 8, 3), np.uint8)))
    (path,) = save_thumbnails(tmp_path, 0, talk, rules=MediaSection(max_image_pixels=100))
    (tmp_path / path).write_bytes(b"kept")
    assert save_thumbnails(tmp_path, 0, talk, rules=MediaSection(max_image_pixels=100)) == (path,)
    assert (tmp_path / path).read_bytes() == b"kept"


def test_sound_is_drawn_as_its_waveform(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    samples = np.concatenate([np.zeros(8000), np.sin(np.arange(8000))]).astype(np.float32)
    alpha = np.asarray(waveform(samples))[:, :, 3] > 0
    assert alpha[:, 10].sum() == 1 and alpha[:, 300].sum() > 80
    stream = io.BytesIO()
    soundfile.write(stream, samples, 8000, format="WAV")
    saved = save_thumbnails(tmp_path, 1, conversation(Audio(data=stream.getvalue())), rules=MediaSection(max_image_pixels=9))
    assert saved == ("eval/media/000001_0.png",)
    assert waveform(np.zeros(0, np.float32)).size == (320, 88)


def test_a_clip_shows_its_middle_frame(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in (0, 0, 250, 0, 0):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (made,) = save_thumbnails(tmp_path, 2, conversation(Video(path=path)), rules=MediaSection(max_image_pixels=10**6))
    with Pillow.open(tmp_path / made) as picture:
        assert np.asarray(picture.convert("L")).mean() > 200
