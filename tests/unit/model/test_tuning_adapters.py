"""Adapters load back key by key, or fail naming the keys."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from foveate.config.model import ModelSection
from foveate.config.tuning import TuningSection
from foveate.dist.mesh import Ranks
from foveate.errors import CheckpointError
from foveate.model.adapters import load_adapter
from foveate.model.tokens import add_tokens, grow
from foveate.model.tuning import apply_tuning
from foveate.train.export import export_model
from tests import families

WAYS = {
    "lora": {},
    "dora": {"dora": True},
    "saved": {"modules_to_save": ["text_model.norm", "connector"], "exclude": ["layers.1.*"]},
    "rows": {"add": True},
    "embeddings": {"add": True, "also_full": ["embeddings", "head"]},
}


def base(family, add=False):
    model, processor = families.build(family)
    tokens = add_tokens(processor, ModelSection(add_tokens=["<a>", "<b>"] if add else []))
    grow(model, tokens, seed=0)
    return model, processor, tokens


def trained(family, folder, *, add=False, **settings):
    """(model whose trained tensors were moved, its exported folder)."""
    model, processor, tokens = base(family, add)
    tuned, _ = apply_tuning(model, TuningSection(rank=2, **settings), seed=0, new_tokens=tokens.ids)
    with torch.no_grad():
        torch.manual_seed(1)
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    export_model(tuned, processor, folder, base_id=family, ranks=Ranks(device=torch.device("cpu")))
    return tuned, folder


def logits(model):
    ids = torch.arange(20, 40)[None]
    extra = {"mm_token_type_ids": torch.zeros_like(ids)} if "qwen" in model.config.model_type or "glm" in model.config.model_type else {}
    with torch.no_grad():
        return model.eval()(input_ids=ids, **extra).logits


@pytest.mark.parametrize("way", WAYS)
def test_what_was_saved_loads_with_equal_logits(tmp_path, way):
    settings = dict(WAYS[way])
    add = settings.pop("add", False)
    tuned, folder = trained("smolvlm", tmp_path / "model", add=add, **settings)
    again = load_adapter(base("smolvlm", add)[0], folder)
    assert torch.equal(logits(again), logits(tuned))
    assert not torch.allclose(logits(again), logits(base("smolvlm", add)[0]), atol=1e-3)


@pytest.mark.parametrize(
    ("family", "settings"),
    [("qwen3_vl_moe", {"targets": ["q_proj", "experts"]}), ("glm4v_moe", {}), ("qwen3_omni_moe_thinker", {}), ("gemma3", {"add": True})],
)
def test_other_families_do_too(tmp_path, family, settings):
    settings = dict(settings)
    add = settings.pop("add", False)
    tuned, folder = trained(family, tmp_path / "model", add=add, **settings)
    again = load_adapter(base(family, add)[0], folder)
    inside, outside = dict(tuned.named_parameters()), dict(again.named_parameters())
    assert all(torch.equal(inside[name], outside[name]) for name, p in inside.items() if p.requires_grad)
    if family not in ("gemma3", "qwen3_omni_moe_thinker"):
        assert torch.equal(logits(again), logits(tuned))


def damaged(folder, change):
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(change(weights), folder / "adapter_model.safetensors")
    return folder


KEY = "base_model.model.model.text_model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: {k: v for k, v in w.items() if k != KEY}, f"1 of 28 keys are missing ({KEY})"),
        (lambda w: {k.replace(KEY, KEY + "s"): v for k, v in w.items()}, f"1 keys have no place in the model ({KEY}s)"),
        (lambda w: {k: v.repeat(2, 1) if k == KEY else v for k, v in w.items()}, f"1 keys have another shape ({KEY}: [4, 128] instead of"),
    ],
)
def test_an_adapter_with_other_keys_is_refused_by_name(tmp_path, change, told):
    _, folder = trained("smolvlm", tmp_path / "model")
    with pytest.raises(CheckpointError) as caught:
        load_adapter(base("smolvlm")[0], damaged(folder, change))
    assert told in str(caught.value)


def test_an_adapter_of_another_rank_is_refused(tmp_path):
    _, folder = trained("smolvlm", tmp_path / "model")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
    with pytest.raises(CheckpointError, match=r"28 keys have another shape \(.*\[2, 256\] instead of \[8, 256\]"):
        load_adapter(base("smolvlm")[0], folder)


@pytest.mark.parametrize("other", ["llava", "qwen2_5_vl", "gemma3"])
def test_an_adapter_of_another_model_is_refused(tmp_path, other):
    _, folder = trained("smolvlm", tmp_path / "model")
    with pytest.raises(CheckpointError, match="does not fit this base model"):
        load_adapter(base(other)[0], folder)


def test_a_base_that_lacks_the_new_tokens_is_refused(tmp_path):
    for way in ("rows", "embeddings"):
        settings = {key: value for key, value in WAYS[way].items() if key != "add"}
        _, folder = trained("smolvlm", tmp_path / way, add=True, **settings)
        with pytest.raises(CheckpointError, match="model.add_tokens"):
            load_adapter(base("smolvlm")[0], folder)


def test_damaged_and_missing_files_are_named(tmp_path):
    _, folder = trained("smolvlm", tmp_path / "model")
    (folder / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="weights are damaged"):
        load_adapter(base("smolvlm")[0], folder)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="weights are missing"):
        load_adapter(base("smolvlm")[0], folder)
