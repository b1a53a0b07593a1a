"""Position ids that Foveate works out beforehand are those that each model works out for itself."""

from __future__ import annotations

import pytest
import torch

from foveate.encode.encoder import Encoder
from foveate.model import tiny
from foveate.model.families import FAMILIES, positions_of
from tests.conformance.subject import subject
from tests.unit.encode.talk import assistant, picture, talk, user

# Omni's thinkers stand for names of their own, GLM for frames written one by one, Qwen2.5-VL for seconds, HunYuan-VL for four axes.
NAMES = (
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen2_5_omni_thinker",
    "qwen3_omni_moe_thinker",
    "glm4v",
    "hunyuan_vl",
    "ernie4_5_vl_moe",
    "cosmos3_edge",
)


def test_the_names_have_rows() -> None:
    assert all(FAMILIES[name].mrope and name in tiny.BUILDS for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_positions_are_the_models_own(name: str) -> None:
    found = subject(name)
    seen: list[torch.Tensor] = []
    places = ("model.language_model.rotary_emb", "model.rotary_emb")  # the latter in the thinkers
    rotary = next(module for place, module in found.model.named_modules() if place in places)
    rotary.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs.get("position_ids", args[-1])), with_kwargs=True)
    for what, (example, *_) in found.examples.items():
        ids = example.input_ids[None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | example.media
        inputs |= {key: value[None] for key, value in example.token_inputs.items()}
        with torch.no_grad():
            found.model(**inputs, use_cache=False)
        own = seen.pop()[-len(example.position_ids) :]
        assert torch.equal(own[:, 0].float(), example.position_ids.float()), what
        several_axes = len(torch.unique(example.position_ids, dim=0)) > 1
        assert several_axes == (what not in ("audio", "text alone")), what


def test_slices_of_an_image_lie_on_one_canvas() -> None:
    """MiniCPM-V 4.7's position ids, worked out in the encoder from a shell of its class, are those of the model itself."""
    model, processor = tiny.build("minicpmv4_7")
    example = Encoder(processor, positions=positions_of(model.config))(talk(user(picture(130, 90), "what?"), assistant("red")))
    asked = {"mm_token_type_ids": example.token_inputs["mm_token_type_ids"][None], "target_sizes": example.media["target_sizes"]}
    wanted, _ = model.model.get_rope_index(example.input_ids[None], **asked)
    assert torch.equal(example.position_ids, wanted[:, 0])
    assert not torch.equal(example.position_ids[1], torch.arange(len(example.input_ids)))
