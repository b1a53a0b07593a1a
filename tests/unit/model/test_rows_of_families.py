"""What rows of model/families.py change in loading, parts, adapters and blocks; the columns of tests/conformance try the rest."""

from __future__ import annotations

import pytest
import torch

from foveate.batching.collate import collate_padded
from foveate.config.model import ModelSection
from foveate.config.tuning import TuningSection
from foveate.dist.fsdp2 import blocks_of
from foveate.encode.encoder import Encoder
from foveate.errors import ModelError
from foveate.evaluate.generate import generate_answers
from foveate.model.families import FAMILIES, keeps_logits
from foveate.model.load import load_model, load_processor
from foveate.model.loss import loss_sum
from foveate.model.parts import part_of
from foveate.model.tiny import build, save
from foveate.model.tuning import apply_tuning
from tests.conformance.subject import medium, say, talk


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


def test_layers_that_only_look_at_images_join_the_tower_to_the_language():
    model, _ = build("mllama")
    parts = part_of(model)
    assert {part for name, part in parts.items() if ".layers.1." in name and "language_model" in name} == {"projector"}
    assert {part for name, part in parts.items() if ".layers.0." in name and "language_model" in name} == {"language"}


def test_a_router_gets_no_adapter():
    """Llama 4's is a linear layer that returns two tensors: PEFT would wrap it and fail in the first forward."""
    model, _ = build("llama4")
    tuned, _ = apply_tuning(model, TuningSection(type="lora", parts=["language"], rank=2), seed=0)
    adapted = {name for name, _ in tuned.named_modules() if name.endswith("lora_A")}
    assert adapted and not any("router" in name for name in adapted)


@pytest.mark.parametrize("name", ["chameleon", "emu3"])
def test_a_tower_that_writes_words_is_not_trained(name):
    model, _ = build(name)
    with pytest.raises(ModelError, match="vision"):
        apply_tuning(model, TuningSection(type="full", parts=["language", "vision"]), seed=0)


def test_a_list_of_levels_is_not_a_list_of_blocks():
    """A VQ-VAE's levels are never called themselves: their blocks are."""
    model, _ = build("chameleon")
    blocks = blocks_of(model)
    assert all(type(block).forward is not torch.nn.Module.forward for block in blocks)
    assert {"ChameleonDecoderLayer", "ChameleonVQVAEEncoderResnetBlock"} <= {type(block).__name__ for block in blocks}


@pytest.mark.parametrize(("name", "kind"), [("llama4", "image"), ("chameleon", "image"), ("muse_spark", "audio"), ("gemma3", "image")])
def test_weights_of_half_precision_get_media_of_their_type(name, kind):
    """Pixels and samples are encoded in float32, and not every tower casts them."""
    model, processor = build(name)
    encoder, model = Encoder(processor), model.bfloat16()
    chat = talk(("user", (medium(kind, 0, 24_000), *say("what?"))), ("assistant", say("one")))
    batch = collate_padded([encoder(chat)], FAMILIES[name], pad_id=0)
    with torch.no_grad():
        assert float(loss_sum(model, batch, keeps_logits=keeps_logits(model))) > 0
    assert len(generate_answers(model, encoder, [chat], max_new_tokens=2, batch_size=1, device="cpu")) == 1
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(loss_sum(model.float(), batch, keeps_logits=keeps_logits(model))) > 0
