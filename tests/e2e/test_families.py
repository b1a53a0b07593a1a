"""Every family that we build tiny models of: train, evaluate by generation, export, and load without Foveate."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import soundfile
import torch
import transformers

from foveate.config.load import load_recipe
from foveate.encode.encoder import Encoder
from foveate.model.families import keeps_logits, positions_of
from foveate.model.loss import loss_sum
from foveate.run.prepare import prepare
from tests import families
from tests.e2e.conftest import metrics, write_jsonl, write_recipe
from tests.unit.batching.test_equality import write_records


def plain_loss(recipe, model):
    """Token-mean loss of the held-out records under a model that transformers loaded, one record at a time, padded, by plain SDPA."""
    from foveate.batching.loader import Share
    from foveate.batching.plan import Plan

    prepared = prepare(load_recipe(recipe, ["batch.pack=false", "batch.micro_size=1"]), allow_code=False)
    # Images as the processor makes them: a plain model takes no bytes.
    prepared = replace(prepared, encoder=Encoder(prepared.processor, positions=positions_of(prepared.config)))
    source = prepared.source(Plan(records=len(prepared.eval), size=1, seed=0), Share(), split="eval")
    total = targets = 0
    with torch.no_grad():
        for k in range(len(source)):
            for batch in source[k].batches:
                total += float(loss_sum(model.eval(), batch, keeps_logits=keeps_logits(model)))
                targets += batch.num_targets
    return total / targets


@pytest.mark.parametrize("name", families.NAMES)
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_train_evaluate_export_and_load_plainly(work, foveate, name, kind):
    from peft import PeftModel

    base = families.save(name, work / "base")
    write_records(work, "audio" if "audio" in name else "image")
    recipe = write_recipe(
        work,
        base,
        tuning={"type": kind, "rank": 4, "parts": ["language"] if kind == "lora" else ["language", "projector", "vision"]},
        data={"train": [{"path": "train.jsonl"}], "eval": [{"path": "train.jsonl"}], "workers": 0},
        train={"steps": 3, "output": "run", "gradient_checkpointing": "full" if kind == "full" else "none"},
        evaluate={"metrics": ["loss", "exact_match", "vqa_accuracy"], "max_new_tokens": 4},
    )
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    assert "overlap" in result.text  # the held-out records are the trained ones here, and that is said
    facts = json.loads((work / "run" / "run.json").read_text())
    assert (facts["read"], facts["used"]) == (6, 6)
    after = [line for line in metrics(work / "run") if line["event"] == "eval"][-1]
    model = getattr(transformers, facts["auto_class"]).from_pretrained(base if kind == "lora" else work / "run" / "model")
    if kind == "lora":
        model = PeftModel.from_pretrained(model, work / "run" / "model").get_base_model()
    processor = transformers.AutoProcessor.from_pretrained(work / "run" / "model")
    assert processor.chat_template == transformers.AutoProcessor.from_pretrained(base).chat_template
    assert plain_loss(recipe, model) == pytest.approx(after["metrics"]["loss"], rel=1e-5)


def test_speech_is_measured_by_word_error_rate(work, foveate):
    base = families.save("qwen2_audio", work / "base")
    rows = []
    for i, text in enumerate(["one two", "three four", "two one", "four"]):
        soundfile.write(work / f"{i}.flac", torch.randn(12000, generator=torch.Generator().manual_seed(i)).numpy() * 0.1, 8000)  # resampled
        rows.append({"audio": f"{i}.flac", "transcription": text})
    write_jsonl(work / "train.jsonl", rows)
    recipe = write_recipe(
        work,
        base,
        data={"train": [{"path": "train.jsonl"}], "eval": [{"path": "train.jsonl"}], "workers": 0},
        train={"steps": 2, "output": "run", "best": "wer", "eval_every": 1},
        evaluate={"metrics": ["loss", "wer"], "max_new_tokens": 8},
    )
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    lines = [line for line in metrics(work / "run") if line["event"] == "eval"]
    assert [(line["step"], line["stage"]) for line in lines[:3]] == [(0, "before"), (1, "during"), (2, "during")]
    best = min(lines[1:3], key=lambda line: line["metrics"]["wer"])
    assert (lines[3]["stage"], lines[3]["step"], lines[3]["metrics"]) == ("after", best["step"], best["metrics"])
    assert all(line["metrics"]["wer"] > 0 for line in lines)


def test_pixel_limits_of_the_recipe_are_saved_with_the_processor(work, foveate):
    base = families.save("qwen2_5_vl", work / "base")
    write_records(work, "image")
    recipe = write_recipe(work, base, model={"id": str(base), "max_pixels": 3136})
    assert foveate("train", recipe).code == 0
    saved = transformers.AutoProcessor.from_pretrained(work / "run" / "model").image_processor
    assert dict(saved.to_dict()["size"])["longest_edge"] == 3136
    assert dict(transformers.AutoProcessor.from_pretrained(base).image_processor.to_dict()["size"])["longest_edge"] != 3136
