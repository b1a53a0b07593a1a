"""A real model's configuration made tiny: the model runs on what the real processor makes, and what the processor needs is kept."""

from __future__ import annotations

import copy

import pytest
import torch

from foveate.batching.collate import collate_padded
from foveate.encode.encoder import Encoder
from foveate.model import tiny
from foveate.model.families import family_of, positions_of
from foveate.model.load import random_model
from foveate.model.tiny import guess, shrink
from tests import families

# Sizes as published: text width, layers and heads; tower width, layers and heads; their names differ by family.
PUBLISHED = {
    "smolvlm": (
        dict(hidden_size=960, intermediate_size=2560, num_hidden_layers=32, num_attention_heads=15, num_key_value_heads=5),
        dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
    ),
    "qwen2_5_vl": (
        dict(hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2,
             rope_parameters={"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1000000.0},
             layer_types=["full_attention"] * 36),
        dict(hidden_size=1280, intermediate_size=3420, out_hidden_size=2048, depth=32, num_heads=16, fullatt_block_indexes=[7, 15, 23, 31]),
    ),
    "qwen3_vl": (
        dict(hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
             rope_parameters={"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True, "rope_theta": 5000000.0}),
        dict(hidden_size=1024, intermediate_size=4096, out_hidden_size=2560, depth=24, num_heads=16, deepstack_visual_indexes=[5, 11, 17]),
    ),
    "gemma3": (
        dict(hidden_size=2560, intermediate_size=10240, num_hidden_layers=34, num_attention_heads=8, num_key_value_heads=4, head_dim=256,
             layer_types=["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(34)]),
        dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16),
    ),
    "llava_onevision": (
        dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
             layer_types=["full_attention"] * 24),
        dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=26, num_attention_heads=16),
    ),
}  # fmt: skip


def published(name: str):
    """The family's configuration in its published sizes, for the vocabulary and pictures of the tiny processor; and that processor."""
    _, config, processor = tiny.BUILDS[name]()
    values = copy.deepcopy(config.to_dict())
    text, vision = PUBLISHED[name]
    values["text_config"] |= text
    values["vision_config"] |= vision
    return type(config).from_dict(values), processor


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_made_tiny_runs_on_what_its_processor_makes(name):
    config, processor = published(name)
    encoder = Encoder(processor, positions=positions_of(config))
    small = shrink.shrunk(config, shrink.ways(config)[0])
    model = random_model(small)
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    for kind in sorted(encoder.kinds):
        batch = collate_padded([encoder.dummy(frozenset({kind}))], family_of(small), pad_id=encoder.pad_id)
        with torch.no_grad():
            logits = model(**batch.inputs).logits
        assert logits.shape[-1] == config.get_text_config().vocab_size
        assert torch.isfinite(logits).all()


def test_what_processor_and_template_depend_on_is_kept_and_the_original_is_not_touched():
    config, _ = published("qwen3_vl")
    before = copy.deepcopy(config.to_dict())
    small = shrink.shrunk(config, shrink.ways(config)[0])
    assert config.to_dict() == before
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "tie_word_embeddings"):
        assert small.to_dict()[name] == before[name]
    for name in ("vocab_size", "max_position_embeddings"):
        assert small.text_config.to_dict()[name] == before["text_config"][name]
    for name in ("patch_size", "spatial_merge_size", "temporal_patch_size", "num_position_embeddings", "in_channels"):
        assert small.vision_config.to_dict()[name] == before["vision_config"][name]


def test_widths_that_must_agree_agree_and_rotary_sections_fill_half_a_head():
    config, _ = published("qwen3_vl")
    small = shrink.shrunk(config, shrink.ways(config)[0])
    assert small.vision_config.out_hidden_size == small.text_config.hidden_size
    sections = small.text_config.rope_parameters["mrope_section"]
    assert sum(sections) * 2 == small.text_config.head_dim
    assert len(sections) == 3 and min(sections) > 0


def test_a_layer_of_each_kind_is_kept_and_lists_name_the_layers_that_are_left():
    config, _ = published("gemma3")
    text = shrink.shrunk(config, shrink.ways(config)[0]).text_config
    assert set(text.layer_types) == {"sliding_attention", "full_attention"}
    assert len(text.layer_types) == text.num_hidden_layers
    config, _ = published("qwen2_5_vl")
    vision = shrink.shrunk(config, shrink.ways(config)[0]).vision_config
    assert vision.fullatt_block_indexes == list(range(vision.depth))  # all four that were named, and no other one


def test_the_second_way_keeps_multiples_where_a_width_is_one_of_another():
    _, config, _ = tiny.BUILDS["mllama"]()
    values = copy.deepcopy(config.to_dict())
    values["text_config"] |= dict(hidden_size=4096, intermediate_size=14336, num_attention_heads=32, num_key_value_heads=8)
    values["vision_config"] |= dict(hidden_size=1280, num_hidden_layers=32, attention_heads=16, vision_output_dim=7680)
    values["vision_config"] |= dict(intermediate_layers_indices=[3, 7, 15, 23, 30])
    big = type(config).from_dict(values)
    vision = shrink.shrunk(big, shrink.ways(big)[1]).vision_config
    assert vision.vision_output_dim == vision.hidden_size * (1 + len(vision.intermediate_layers_indices))


@pytest.mark.parametrize(
    ("hub_id", "family"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl"),
        ("Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl"),
        ("Qwen/Qwen3-VL-30B-A3B-Instruct", "qwen3_vl_moe"),
        ("HuggingFaceTB/SmolVLM-500M-Instruct", "smolvlm"),
        ("google/gemma-3-4b-it", "gemma3"),
        ("google/gemma-3n-E4B-it", "gemma3n"),
        ("google/paligemma2-3b-pt-448", "paligemma"),
        ("microsoft/Phi-4-multimodal-instruct", "phi4_multimodal"),
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava_onevision"),
        ("llava-hf/llava-v1.6-mistral-7b-hf", "llava_next"),
        ("llava-hf/LLaVA-NeXT-Video-7B-hf", "llava_next_video"),
        ("OpenGVLab/InternVL3-1B-hf", "internvl"),
        ("mistral-community/pixtral-12b", "llava"),
        ("somebody/their-own-model", None),
        ("somebody/malaria-classifier", None),
    ],
)
def test_a_family_is_told_by_the_hub_models_name(hub_id, family):
    assert guess.family_named(hub_id) == family


def test_every_guess_is_a_family_of_transformers():
    families.processor("smolvlm")  # transformers is mended before its tables are looked at
    from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES as MULTIMODAL

    known = set(MULTIMODAL) | set(tiny.BUILDS) | set(tiny.UNBUILT)
    assert {family for _, family in guess.NAMES} - known == set()
