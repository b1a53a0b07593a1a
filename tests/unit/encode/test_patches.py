"""What the towers compute of a conversation follows from headers: it is what the processor really hands them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from foveate.batching.lengths import require_fit
from foveate.config.data import SourceSection
from foveate.data.mixture import build_mixture
from foveate.encode.encoder import Encoder
from foveate.encode.patches import patches_of
from foveate.errors import DataError
from foveate.model.families import family_of, patch_of, positions_of
from tests import families

IMAGES = ("smolvlm", "smolvlm_split", "qwen2_5_vl", "gemma3", "llava_onevision", "internvl", "paligemma", "idefics3")


def encoder_of(name: str) -> tuple[Encoder, int]:
    model, processor = families.build(name)
    lean, patch = family_of(model.config).byte_tower is not None, patch_of(model.config)
    return Encoder(processor, positions=positions_of(model.config), lean=lean, patch=patch), patch


@pytest.mark.parametrize("name", IMAGES)
def test_patches_of_a_picture_are_those_of_its_encoding(tmp_path, name):
    rows = []
    for i, (height, width) in enumerate([(32, 32), (130, 70), (64, 300)]):
        Image.new("RGB", (width, height), (9, 90, 200)).save(tmp_path / f"{i}.png")
        rows.append({"image": f"{i}.png", "question": "what color?", "answer": "blue"})
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mixture = build_mixture([SourceSection(path=str(path))])
    encoder, patch = encoder_of(name)
    for place in range(len(rows)):
        conversation = mixture.conversation(place)
        length, example = encoder.length(conversation), encoder(conversation)
        assert length.patches == patches_of(example.media, patch=patch, mels=1, rate_hz=16_000) > 0
        assert length.tokens == len(example.input_ids)


def test_sounds_are_taken_for_tenths_of_a_second(tmp_path):
    encoder, _ = encoder_of("gemma3n")
    for i, samples in enumerate((16_000, 16_001, 17_599)):
        soundfile.write(tmp_path / f"{i}.wav", np.zeros(samples, np.float32), 16_000)
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps({"audio": f"{i}.wav", "question": "who?", "answer": "red"}) + "\n" for i in range(3)))
    mixture = build_mixture([SourceSection(path=str(path))])
    real = [encoder(mixture.conversation(i)).media["input_features"].shape[1] for i in range(3)]
    found = [encoder.length(mixture.conversation(i)).patches for i in range(3)]
    assert found[0] == real[0] and real[0] < found[1] == found[2] and real[2] <= found[2] <= real[0] + 11


def test_layouts():
    shapes = {
        "flat": ({"pixel_values": torch.empty(40, 588)}, 40),
        "tiles": ({"pixel_values": torch.empty(1, 5, 3, 64, 64), "pixel_attention_mask": torch.empty(1, 5, 64, 64)}, 5 * 64),
        "vectors": ({"pixel_values": torch.empty(2, 16, 192)}, 32),
        "patches": ({"pixel_values": torch.empty(10, 3, 8, 8)}, 10),
        "a list": ({"pixel_values": [torch.empty(1, 3, 64, 64), torch.empty(1, 3, 32, 64)]}, 96),
        "mels first": ({"input_features": torch.empty(1, 80, 300), "input_features_mask": torch.empty(1, 300)}, 300),
        "mels last": ({"audio_input_features": torch.empty(1, 300, 80), "audio_embed_sizes": torch.empty(1)}, 300),
        "joined": ({"input_features": torch.empty(1, 50, 160)}, 50),
        "samples": ({"input_values": torch.empty(1, 1, 16_000)}, 100),
        "nothing": ({"input_ids": torch.empty(1, 50)}, 0),
    }
    for name, (outputs, wanted) in shapes.items():
        mels = 1 if name == "samples" else 80
        assert patches_of(outputs, patch=8, mels=mels, rate_hz=16_000) == wanted, name


def test_a_conversation_with_too_many_patches_is_refused(tmp_path):
    Image.new("RGB", (448, 448)).save(tmp_path / "a.png")
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": "a.png", "question": "what color?", "answer": "blue"}) + "\n")
    conversation = build_mixture([SourceSection(path=str(tmp_path / "a.jsonl"))]).conversation(0)
    encoder, _ = encoder_of("llava")
    length = encoder.length(conversation)
    require_fit(conversation, length, max_tokens=4096, max_patches=length.patches)
    with pytest.raises(DataError, match="batch.max_patches") as caught:
        require_fit(conversation, length, max_tokens=4096, max_patches=length.patches - 1)
    assert caught.value.reason == "too_many_patches"
