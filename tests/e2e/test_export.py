"""A run becomes a Hugging Face folder that is proven to be the model that was trained."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import pytest
import soundfile
import torch
import transformers
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from foveate.model.base_files import folder_shapes
from tests import families
from tests.e2e.conftest import metrics, picture, write_recipe
from tests.unit.batching.test_equality import write_records
from tests.unit.train.test_export import published

FAMILIES = ("smolvlm", "qwen2_5_vl", "gemma3", "llava_onevision", "qwen2_audio")
# A processor that transformers alone can't give text and sounds in one call; a decoder that writes the answer in a row of its own.
WITH_LORA = ("voxtral", "florence2")
AUDIO = ("qwen2_audio", "voxtral")
ROWS = {"florence2": [0, 2, 3, 5]}  # one question and one image: the records that it takes
TUNING = {
    "lora": {"rank": 4, "rslora": True, "also_full": ["projector"]},
    "dora": {"rank": 4, "dora": True, "parts": ["language", "vision"]},
    "full": {"type": "full", "parts": ["language", "projector", "vision"]},
}


def a_run(work, foveate, name: str = "smolvlm", *, tuning: str = "lora", train=None, model=None, evaluate=None, rename=None) -> Path:
    """A run of two steps, so hard that its logits are far from the base's; held-out are the records trained on. Its recipe's path."""
    base = families.save(name, work / "base")
    if rename is not None:
        weights = {rename(key): tensor for key, tensor in load_file(base / "model.safetensors").items()}
        save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    write_records(work, "audio" if name in AUDIO else "image")
    recipe = write_recipe(
        work,
        base,
        model=model or {},
        data={split: [{"path": "train.jsonl", "rows": ROWS.get(name)}] for split in ("train", "eval")},
        batch={"max_tokens": 1024},
        optim={"lr": 0.01},
        train={"steps": 2, **(train or {})},
        evaluate={"metrics": ["loss"], "before": False, **(evaluate or {})},
    )
    written = json.loads(recipe.read_text())
    written["tuning"] = {"type": "lora", "parts": ["language"], **TUNING[tuning]}
    if name == "llava_onevision":  # its `image_newline` is no module, so its projector can't be trained in full beside adapters
        written["tuning"].pop("also_full", None)
    recipe.write_text(json.dumps(written))
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    return recipe


def certificate(folder: Path) -> dict:
    return json.loads((folder / "parity.json").read_text())


def measured(foveate, recipe: Path, model: Path) -> float:
    result = foveate("eval", recipe, "--model", model, "--json")
    assert result.code == 0, result.text
    return json.loads(result.out)["metrics"]["loss"]


def run_card(out: Path) -> None:
    """Run the Python on the card, in a folder that has the files which it names."""
    picture("red").save(out / "photo.jpg")
    soundfile.write(out / "sound.wav", torch.randn(16000).numpy() * 0.1, 16000)
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    with contextlib.chdir(out):
        values: dict = {}
        exec(compile(code, "README.md", "exec"), values)
    prompt = 1 if values["model"].config.is_encoder_decoder else values["inputs"]["input_ids"].shape[1]
    assert values["output"].shape[1] > prompt
    assert f"output[0, {1 if prompt == 1 else 'inputs'}" in code


CASES = [*((name, tuning) for name in FAMILIES for tuning in TUNING), *((name, "lora") for name in WITH_LORA)]


@pytest.mark.parametrize(("name", "tuning"), CASES)
def test_the_folder_is_the_trained_model(work, foveate, name, tuning):
    recipe = a_run(work, foveate, name, tuning=tuning)
    result = foveate("export", "run")
    assert result.code == 0, result.text
    out = work / "run" / "export"
    parity = certificate(out)["parity"]
    count = len(ROWS.get(name, range(6)))
    assert (parity["records"], parity["encoded_equal"]) == (count, count)
    assert parity["written"]["largest"] <= 1e-4 and parity["written"]["agreement"] == 1.0
    if tuning != "full":
        assert parity["merged"]["largest"] <= parity["merged"]["tolerance"] < parity["tuning_effect"] / 9
    assert folder_shapes(out) == folder_shapes(work / "base")
    assert not (out / "adapter_config.json").exists()
    after = [line for line in metrics(work / "run") if line["event"] == "eval"][-1]["metrics"]["loss"]
    assert measured(foveate, recipe, out) == pytest.approx(after, abs=2e-5)
    assert measured(foveate, recipe, work / "base") != pytest.approx(after, abs=1e-2)
    assert not [path.name for path in (work / "run").iterdir() if path.name.startswith(".export")]


def test_published_names_stay(work, foveate):
    """Qwen2.5-VL's published folders call the tower `visual`, its module `model.visual`; vLLM looks for the former."""
    a_run(work, foveate, "qwen2_5_vl", rename=published)
    assert foveate("export", "run", "--max-shard-size", "100KB").code == 0
    out = work / "run" / "export"
    assert len(list(out.glob("model-*.safetensors"))) > 3
    assert folder_shapes(out) == folder_shapes(work / "base")
    assert any(name.startswith("visual.") for name in folder_shapes(out))
    assert certificate(out)["parity"]["names"]["equal"] == len(folder_shapes(work / "base"))


def test_rounding_to_16_bits_is_stated(work, foveate):
    a_run(work, foveate)
    assert foveate("export", "run", "--dtype", "bfloat16", "--samples", "2").code == 0
    out = work / "run" / "export"
    found = certificate(out)
    assert (found["dtype"], found["parity"]["records"]) == ("bfloat16", 2)
    assert 1e-4 < found["parity"]["written"]["largest"] <= found["parity"]["written"]["tolerance"]
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_adapters_alone(work, foveate):
    from peft import PeftModel

    recipe = a_run(work, foveate, tuning="dora")
    assert foveate("export", "run", "--no-merge").code == 0
    out = work / "run" / "export"
    parity = certificate(out)["parity"]
    assert parity["merged"] is None and parity["written"]["largest"] == 0
    after = [line for line in metrics(work / "run") if line["event"] == "eval"][-1]["metrics"]["loss"]
    assert measured(foveate, recipe, out) == pytest.approx(after, abs=1e-6)
    base = transformers.AutoModelForImageTextToText.from_pretrained(work / "base")
    assert PeftModel.from_pretrained(base, out).peft_config["default"].use_dora
    data = ModelCard.load(out / "README.md").data
    assert (data.library_name, "lora" in data.tags) == ("peft", True)


def test_the_folder_trains_on(work, foveate):
    recipe = a_run(work, foveate)
    assert foveate("export", "run").code == 0
    result = foveate("train", recipe, "model.id=run/export", "train.output=second")
    assert result.code == 0, result.text
    first, second = ([line for line in metrics(work / run) if line["event"] == "step"][0]["loss"] for run in ("run", "second"))
    assert second < first
    assert foveate("export", "second").code == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [("smolvlm", []), ("smolvlm", ["--no-merge"]), ("qwen2_audio", []), ("voxtral", ["--no-merge"]), ("florence2", [])],
)
def test_the_code_on_the_card_runs(work, foveate, name, options):
    a_run(work, foveate, name)
    assert foveate("export", "run", *options).code == 0
    run_card(work / "run" / "export")


def test_the_card(work, foveate):
    front = "---\nlicense: other\nlicense_name: scan-1\nlicense_link: LICENSE\nlanguage: en\n---\n# Base\n"
    recipe = a_run(work, foveate, evaluate={"before": True})
    (work / "base" / "README.md").write_text(front)
    assert foveate("export", "run").code == 0
    card = ModelCard.load(work / "run" / "export" / "README.md")
    assert (card.data.license, card.data.license_name, card.data.license_link) == ("other", "scan-1", "LICENSE")
    assert card.data.pipeline_tag == "image-text-to-text"
    assert "base_model" not in card.data.to_dict()  # a folder of this machine
    text = card.text
    assert "base after LoRA (rank-stabilised) of rank 4 on language, and projector in full, 2 steps, merged into its weights" in text
    assert "6 training records were read: 6 used, 0 quarantined." in text
    assert re.search(r"\| Loss \| [\d.]+ \| [\d.]+ \| 6 \|", text)
    assert "\n- Train and eval overlap" in text
    (written,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert written == (work / "run" / "recipe.yaml").read_text()
    assert "rslora: true" in written and str(recipe.parent) in written


def test_quarantined_records_are_in_the_books(work, foveate):
    base = families.save("smolvlm", work / "base")
    write_records(work, "image")
    (work / "3.png").write_bytes((work / "3.png").read_bytes()[:60])
    recipe = write_recipe(work, base, data={"max_bad": 3}, train={"steps": 2})
    assert foveate("train", recipe).code == 0
    result = foveate("export", "run")
    assert result.code == 0, result.text
    found = certificate(work / "run" / "export")
    said = "1 train records can't be used and are not among those that the models are compared on; the first: train.jsonl row 4: "
    assert found["parity"]["passed_over"] == 1 and any(said in note for note in found["notes"]), found["notes"]
    assert said in result.err
    text = (work / "run" / "export" / "README.md").read_text()
    facts = json.loads((work / "run" / "run.json").read_text())
    assert facts["quarantined"] > 0
    assert f"{facts['read']} training records were read: {facts['used']} used, {facts['quarantined']} quarantined" in text
    assert f"| `{next(iter(facts['reasons']))}` | " in text
    assert "These weights were not measured" in text


def test_the_card_counts_the_records_that_were_measured(work, foveate):
    """Slots of the mixture, bad ones left out, and known from the evaluation itself: not from run.json, which may be lost."""
    base = families.save("smolvlm", work / "base")
    write_records(work, "image")
    (work / "3.png").write_bytes((work / "3.png").read_bytes()[:60])
    data = {"eval": [{"path": "train.jsonl", "weight": 2}], "train": [{"path": "train.jsonl", "rows": [0]}], "max_bad": 3}
    recipe = write_recipe(work, base, data=data, train={"steps": 1}, evaluate={"metrics": ["loss"], "before": False})
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    (work / "run" / "run.json").unlink()
    after = work / "run" / "eval" / "after.json"
    measured = json.loads(after.read_text())
    assert measured["records"] == 10
    assert foveate("export", "run").code == 0
    assert re.search(r"\| Loss \| – \| [\d.]+ \| 10 \|", (work / "run" / "export" / "README.md").read_text())
    after.write_text(json.dumps({key: value for key, value in measured.items() if key != "records"}))  # as versions before this one
    assert foveate("export", "run", "--overwrite").code == 0
    assert re.search(r"\| Loss \| – \| [\d.]+ \|\n", (work / "run" / "export" / "README.md").read_text())


def test_generation_ends_where_the_template_ends_answers(work, foveate):
    a_run(work, foveate, "gemma3")
    config = json.loads((work / "base" / "generation_config.json").read_text())
    result = foveate("export", "run")
    assert "generation ends at '<end_of_turn>' too" in result.err
    ends = json.loads((work / "run" / "export" / "generation_config.json").read_text())["eos_token_id"]
    assert config["eos_token_id"] in ends and len(ends) == 2


def test_settings_that_transformers_refuses_to_write(work, foveate):
    """Some published models hold sampling settings beside `do_sample: false`: they load, but can't be saved."""
    base = families.save("smolvlm", work / "base")
    path = base / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_sample": False, "temperature": 0.3, "top_p": 0.5}))
    write_records(work, "image")
    recipe = write_recipe(work, base, tuning={"type": "full"}, train={"steps": 1})
    written = json.loads(recipe.read_text())
    del written["tuning"]["rank"]
    recipe.write_text(json.dumps(written))
    assert foveate("train", recipe).code == 0  # its final model is saved as well
    assert foveate("export", "run").code == 0


def test_added_tokens_and_a_quantised_base(work, foveate):
    model = {"add_tokens": ["<loc>"], "quantize": {"bits": 8, "backend": "torchao"}}
    recipe = a_run(work, foveate, model=model, tuning="lora")
    result = foveate("export", "run")
    assert result.code == 0, result.text
    assert "trained on a quantised base" in result.err
    out = work / "run" / "export"
    parity = certificate(out)["parity"]
    assert 0 < parity["quantised"]["largest"] < parity["tuning_effect"] and parity["quantised"]["tolerance"] is None
    assert parity["names"]["resized"] == ["lm_head.weight", "model.text_model.embed_tokens.weight"]
    tokenizer = transformers.AutoProcessor.from_pretrained(out).tokenizer
    assert len(tokenizer.encode("<loc>", add_special_tokens=False)) == 1
    assert "trained over 8-bit weights" in (out / "README.md").read_text()
    assert recipe.is_file()


def test_adapters_with_added_tokens(work, foveate):
    a_run(work, foveate, "qwen2_5_vl", model={"add_tokens": ["<loc>"]}, tuning="dora")
    assert foveate("export", "run", "--no-merge").code == 0
    run_card(work / "run" / "export")
