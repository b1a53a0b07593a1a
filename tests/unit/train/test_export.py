"""The exported folder loads without Foveate and gives the same logits; see tests/dist for several processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from foveate.dist.mesh import Ranks
from foveate.errors import CheckpointError
from foveate.train.export import export_model
from tests import families
from tests.dist.small_runs import build, logits_of, train_and_export


@pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl"])
def test_a_full_model_gives_the_same_logits(family: str, tmp_path: Path) -> None:
    out = tmp_path / "model"
    wanted = train_and_export(Ranks(), family, "full", "auto", out, "unused")
    model = AutoModelForImageTextToText.from_pretrained(out).eval()
    np.testing.assert_allclose(logits_of(model, AutoProcessor.from_pretrained(out)), wanted, atol=1e-6)
    assert os.listdir(tmp_path) == ["model"]


def test_names_on_disk_stay_those_of_the_base(tmp_path: Path) -> None:
    """Published Qwen2.5-VL folders call the tower `visual`, the module is `model.visual`: rivals resume from the base weights over this."""
    base, out = families.save("qwen2_5_vl", tmp_path / "base"), tmp_path / "model"
    weights = {published(name): tensor for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    model, processor = AutoModelForImageTextToText.from_pretrained(base), AutoProcessor.from_pretrained(base)
    export_model(model, processor, out, base_id="unused", ranks=Ranks())
    assert load_file(out / "model.safetensors").keys() == weights.keys()
    back = AutoModelForImageTextToText.from_pretrained(out).eval()
    assert np.array_equal(logits_of(back, processor), logits_of(model.eval(), processor))


def published(name: str) -> str:
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


@pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl"])
def test_adapters_give_the_same_logits_on_their_base(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    base = families.save(family, tmp_path / "base")
    out = tmp_path / "run" / "model"
    wanted = train_and_export(Ranks(), family, "lora", "auto", out, str(base))
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), out).eval()
    np.testing.assert_allclose(logits_of(model, AutoProcessor.from_pretrained(out)), wanted, atol=1e-6)


def test_the_processor_keeps_template_and_pixel_limits(tmp_path: Path) -> None:
    model, processor = build("qwen2_5_vl", "full")
    processor.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    export_model(model, processor, tmp_path / "model", base_id="unused", ranks=Ranks())
    back = AutoProcessor.from_pretrained(tmp_path / "model")
    assert back.chat_template == processor.chat_template
    assert dict(back.image_processor.size) == {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}


def test_an_earlier_export_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "stale.txt").write_text("")
    export_model(*build("smolvlm", "full"), out, base_id="unused", ranks=Ranks())
    assert not (out / "stale.txt").exists() and (out / "model.safetensors").is_file()
    assert os.listdir(tmp_path) == ["model"]


def test_the_base_revision_is_named(tmp_path: Path) -> None:
    export_model(*build("smolvlm", "lora"), tmp_path / "model", base_id="org/base", base_revision="abc123", ranks=Ranks())
    config = json.loads((tmp_path / "model" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/base", "abc123")


def test_trained_weights_that_peft_would_leave_out_are_an_error(tmp_path: Path) -> None:
    model, processor = build("smolvlm", "lora")
    for name, parameter in model.named_parameters():
        if "vision_model" in name:
            parameter.requires_grad_(True)
    with pytest.raises(CheckpointError, match="PEFT's format holds 9 of the 46 trained tensors"):
        export_model(model, processor, tmp_path / "model", base_id="org/base", ranks=Ranks())
    assert not (tmp_path / "model").exists()


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="the model can't be written"):
        export_model(*build("smolvlm", "full"), tmp_path / "file" / "model", base_id="unused", ranks=Ranks())
