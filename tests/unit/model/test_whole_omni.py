"""Of a model in several parts, of which one is trained, that part is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from foveate.config.model import ModelSection
from foveate.model import tiny
from foveate.model.families import FAMILIES, family_of
from foveate.model.load import load_config, load_model, load_skeleton

WHOLE = {
    "qwen2_5_omni": (transformers.Qwen2_5OmniConfig, transformers.Qwen2_5OmniForConditionalGeneration),
    "qwen3_omni_moe": (transformers.Qwen3OmniMoeConfig, transformers.Qwen3OmniMoeForConditionalGeneration),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_thinker_is_loaded_from_the_whole(name: str, tmp_path: Path) -> None:
    thinker, processor = tiny.build(f"{name}_thinker")
    config_class, model_class = WHOLE[name]
    whole = model_class(config_class(thinker_config=thinker.config.to_dict(), enable_audio_output=False))
    whole.thinker.load_state_dict(thinker.state_dict())
    whole.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    section = ModelSection(id=str(tmp_path))
    loaded = load_model(section)
    assert type(loaded) is type(thinker)
    wanted = thinker.state_dict()
    assert loaded.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in loaded.state_dict().items())
    assert family_of(load_config(section)) is FAMILIES[f"{name}_thinker"]
    assert {key for key, _ in load_skeleton(section).named_parameters()} == {key for key, _ in thinker.named_parameters()}
