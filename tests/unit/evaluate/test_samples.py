"""The preview's samples: pixels come back as they went in, pieces add up, characters stay whole."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from foveate.config.media import MediaSection
from foveate.encode.encoder import IGNORED, Encoder
from foveate.evaluate.pixels import seen_by_model
from foveate.evaluate.samples import pieces, preview_sample
from foveate.types import Audio, Conversation, Image, Message, Text
from tests.families import processor

VISION = ("smolvlm", "smolvlm_split", "qwen2_5_vl", "qwen3_vl", "gemma3", "llava_onevision")


def quarters() -> Pillow.Image:
    """Red and green over blue and white, 96 x 64: no flip or swap of axes or channels leaves it the same."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48], pixels[:32, 48:], pixels[32:, :48], pixels[32:, 48:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    return Pillow.fromarray(pixels)


def conversation(answer: str = "red, green", *media) -> Conversation:
    user = Message(role="user", parts=(*media, Text(text="what color? naïve 😀 ağaç")))
    return Conversation(messages=(user, Message(role="assistant", parts=(Text(text=answer),))))


def png(picture: Pillow.Image) -> Image:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return Image(data=stream.getvalue())


@pytest.mark.parametrize("name", VISION)
def test_the_picture_is_what_the_model_gets(name):
    made = processor(name)
    example = Encoder(made)(conversation("red", png(quarters())))
    picture = seen_by_model(example.media, made)[-1 if name == "smolvlm_split" else 0].picture
    seen = np.asarray(picture.resize((96, 64), Pillow.Resampling.BOX), np.int16)
    for row, column, colour in ((16, 24, (255, 0, 0)), (16, 72, (0, 255, 0)), (48, 24, (0, 0, 255)), (48, 72, (255, 255, 255))):
        assert np.abs(seen[row, column] - colour).max() <= 8, name


def test_padding_is_cut_off_and_tiles_are_counted():
    tiles, mask = torch.full((1, 2, 3, 64, 64), 0.5), torch.zeros(1, 2, 64, 64)
    tiles[0, 1] = 0.0  # the processor's filling of a batch
    mask[0, :, :43] = 1.0
    (seen,) = seen_by_model({"pixel_values": tiles, "pixel_attention_mask": mask}, processor("smolvlm"))
    assert seen.caption == "64 × 43 pixels" and seen.picture.size == (64, 43) and seen.picture.getpixel((0, 0)) == (191, 191, 191)
    made = processor("smolvlm_split")
    captions = [item.caption for item in seen_by_model(Encoder(made)(conversation("red", png(quarters()))).media, made)]
    assert captions[0].startswith(f"tile 1 of {len(captions)}, ") and len(captions) > 2


def test_sound_is_drawn():
    soundfile = pytest.importorskip("soundfile")
    stream = io.BytesIO()
    soundfile.write(stream, np.sin(np.arange(16000) * 0.3).astype(np.float32), 16000, format="WAV")
    made = processor("qwen2_audio")
    example = Encoder(made)(conversation("one", Audio(data=stream.getvalue())))
    (seen,) = seen_by_model(example.media, made)
    assert seen.caption == "32 mel bands × 100 frames"


@pytest.mark.parametrize("name", ["smolvlm", "qwen2_5_vl", "gemma3"])
def test_pieces_add_up(name):
    made = processor(name)
    talk = conversation("kırmızı 🟥", png(quarters()))
    example = Encoder(made)(talk)
    found = list(pieces(example, made.tokenizer))
    assert sum(piece.count for piece in found) == len(example.input_ids)
    assert sum(piece.count for piece in found if piece.trained) == int((example.labels != IGNORED).sum())
    text = "".join(piece.text for piece in found if piece.kind == "text")
    assert "naïve 😀 ağaç" in text and "\N{REPLACEMENT CHARACTER}" not in text
    trained = "".join(piece.text for piece in found if piece.trained and piece.kind == "text")
    assert trained.strip() == "kırmızı 🟥"
    media = [piece for piece in found if piece.kind == "media"]
    assert len(media) == 1 and media[0].count > 3 and not media[0].trained


def test_text_only_has_no_pictures():
    made = processor("qwen2_5_vl")
    talk = conversation()
    sample = preview_sample(talk, Encoder(made)(talk), made, split="eval", rules=MediaSection(max_image_pixels=10_000))
    assert sample.pictures == () and sample.split == "eval" and 0 < sample.targets < sample.tokens
