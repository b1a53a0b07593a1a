"""Loading: each part gets the attention that it knows, and a processor nothing that nobody asked for."""

import pytest
import torch

from foveate.config.model import ModelSection
from foveate.model.load import load_model, load_processor
from foveate.model.tiny import save


@pytest.fixture(scope="module")
def gemma4(tmp_path_factory):
    return save("gemma4", tmp_path_factory.mktemp("gemma4"))


def test_a_tower_that_knows_no_sdpa_keeps_the_others_from_nothing(gemma4):
    """Gemma 4's sound tower has attention of its own alone: the rest still gets SDPA."""
    config = load_model(ModelSection(id=str(gemma4))).config
    assert config.text_config._attn_implementation == "sdpa" and config.audio_config._attn_implementation == "eager"
    config = load_model(ModelSection(id=str(gemma4), attention="eager")).config
    assert config.text_config._attn_implementation == "eager"


def test_a_tokenizer_saved_after_padding_asks_no_feature_extractor_for_a_length(gemma4, tmp_path):
    processor = load_processor(ModelSection(id=str(gemma4)))
    processor.tokenizer(["one", "one two three"], padding=True)
    processor.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text((gemma4 / "config.json").read_text())
    again = load_processor(ModelSection(id=str(tmp_path)))
    heard = again(text=["<|audio|>"], audio=[torch.zeros(4000).numpy()], sampling_rate=16_000, return_tensors="pt")
    assert heard["input_features"].shape[0] == 1
