"""Every way of tuning as a user runs it: trained, resumed bit for bit, evaluated, loaded with PEFT alone."""

import json

import pytest
import torch

from tests.e2e.conftest import metrics, picture, write_recipe, write_set

TOKENS = {"add_tokens": ["<loc>"], "add_special_tokens": ["<seen>"]}
WAYS = {
    "dora": {"tuning": {"dora": True, "dropout": 0.1}},
    "rslora": {"tuning": {"rslora": True, "targets": ["*.q_proj", "layers.1.*"], "modules_to_save": ["text_model.norm", "post_layernorm"]}},
    "tokens": {"model": TOKENS, "optim": {"lr": 1e-3, "per_part": {"embeddings": {"lr": 5e-3}}}},
    "4bit": {"model": {"quantize": {}}},
    "8bit": {"model": {"quantize": {"bits": 8, "parts": ["language", "vision"], "skip": ["fc1"]}}},
    "torchao": {"model": {"quantize": {"bits": 8, "backend": "torchao"}}, "tuning": {"dora": True}},
    "all": {"model": {**TOKENS, "quantize": {"double": False}}, "tuning": {"dora": True, "also_full": ["projector"]}},
}


@pytest.fixture
def recipe_of(work, model_dir):
    """A function from a way's name to its recipe: eight records about new tokens, half of them held out as well."""

    def write(way):
        write_set(work, 8)
        rows = [json.loads(line) for line in (work / "train.jsonl").read_text().splitlines()]
        for row in rows:
            row["answer"] = f"<seen><loc> {row['answer']}"
        (work / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        sections = {**WAYS[way], "model": {"id": str(model_dir), **WAYS[way].get("model", {})}}
        data = {"train": [{"path": "train.jsonl"}], "eval": [{"path": "train.jsonl", "split": "train[:4]"}], "workers": 0}
        evaluation = {"metrics": ["loss"], "before": False}
        train = {"steps": 4, "save_every": 2, "keep": 4, "output": "run"}
        return write_recipe(work, model_dir, **{**sections, "data": data, "evaluate": evaluation, "train": train})

    return write


def plain_peft(work, base, way):
    """The trained model as the report tells to load it, without Foveate."""
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig, TorchAoConfig

    processor = AutoProcessor.from_pretrained(work / "run" / "model")
    options, skipped = {}, ["vision_model", "connector", "lm_head"]
    if way in ("4bit", "all"):
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=way == "4bit",
            bnb_4bit_compute_dtype=torch.float32,
            llm_int8_skip_modules=[f"model.{name}" for name in skipped[:2]] + skipped[2:],
        )
        options = {"quantization_config": config}
    elif way == "8bit":
        left = ["model.connector", "lm_head", r"model\.vision_model\..*\.fc1"]
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=left)
        options = {"quantization_config": config}
    elif way == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        config = TorchAoConfig(Int8WeightOnlyConfig(), modules_to_not_convert=["model.vision_model", "model.connector", "lm_head"])
        options = {"quantization_config": config}
    model = AutoModelForImageTextToText.from_pretrained(base, **options)
    if way in ("tokens", "all"):
        model.resize_token_embeddings(len(processor.tokenizer))
    return PeftModel.from_pretrained(model, work / "run" / "model").eval(), processor


def foveate_model(recipe, folder):
    """The same through Foveate's own strict loading."""
    from foveate.config.load import load_recipe
    from foveate.model.adapters import load_adapter
    from foveate.run.build import load_attending
    from foveate.run.prepare import prepare

    prepared = prepare(load_recipe(recipe, ()), allow_code=False)
    return load_adapter(load_attending(prepared), folder).eval()


@pytest.mark.parametrize("way", WAYS)
def test_a_way_of_tuning_from_recipe_to_plain_peft(work, model_dir, recipe_of, foveate, way):
    if way in ("4bit", "8bit", "all"):
        pytest.importorskip("bitsandbytes")
    if way == "torchao":
        pytest.importorskip("torchao")
    recipe = recipe_of(way)
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    losses = [line["loss"] for line in metrics(work / "run") if line["event"] == "step"]
    assert losses[-1] < losses[0]
    ours = foveate_model(recipe, work / "run" / "model")
    theirs, processor = plain_peft(work, model_dir, way)
    inputs = processor(text=["User:<image>What <loc> color?\nAssistant:<seen>"], images=[picture("red")], return_tensors="pt")
    if "model" in WAYS[way] and "add_tokens" in WAYS[way]["model"]:
        assert (inputs["input_ids"] >= 413).sum() == 2  # each new token is one token
    if way in ("4bit", "all"):
        theirs.train()  # in evaluation mode bitsandbytes computes in 16 bits on some CPUs
    with torch.no_grad():
        wanted = theirs(**inputs).logits
        assert torch.allclose(ours(**inputs).logits, wanted, atol=1e-5)
    told = foveate("eval", work / "run", "--json")
    assert told.code == 0, told.text
    after = [line for line in metrics(work / "run") if line.get("stage") == "after"][0]["metrics"]["loss"]
    assert json.loads(told.out)["metrics"]["loss"] == pytest.approx(after, abs=1e-5)


@pytest.mark.parametrize("way", ["dora", "rslora", "tokens", "all"])
def test_it_resumes_bit_for_bit(work, recipe_of, foveate, way):
    if way == "all":
        pytest.importorskip("bitsandbytes")
    recipe = recipe_of(way)
    assert foveate("train", recipe, "train.output=whole").code == 0
    from_two = work / "whole" / "checkpoints" / "step-000002"
    result = foveate("train", recipe, "--resume", "--from", from_two)
    assert result.code == 0, result.text
    final, whole = ((work / name / "model" / "adapter_model.safetensors").read_bytes() for name in ("run", "whole"))
    assert final == whole


def test_the_table_of_modules_is_printed_and_kept(work, recipe_of, foveate):
    recipe = recipe_of("tokens")
    checked = foveate("check", recipe)
    assert checked.code == 0, checked.text
    trained = foveate("train", recipe)
    for printed in (checked.text, trained.text):
        assert "model.text_model.layers.*.self_attn.{q,k,v,o}_proj" in printed
        assert "2 new rows" in printed
    facts = json.loads((work / "run" / "run.json").read_text())
    rows = {row["pattern"]: row for row in facts["params"]["modules"]}
    assert rows["model.vision_model"]["how"] == "frozen"
    assert rows["model.text_model.embed_tokens"]["lr"] == 5e-3
    assert rows["model.text_model.layers.*.mlp.{gate,up,down}_proj"]["how"] == "adapter r=4"
    page = (work / "run" / "report.html").read_text()
    assert "model.text_model.embed_tokens" in page
    assert "resize_token_embeddings" in page


def test_a_missing_library_is_named_at_check_time(work, recipe_of, foveate, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else found(name, *rest))
    recipe = recipe_of("4bit")
    for command in ("check", "train"):
        result = foveate(command, recipe)
        assert result.code == 2
        assert 'pip install "foveate[quant]"' in result.text
        assert "Traceback" not in result.text


def test_an_unknown_name_stops_before_weights_load(work, recipe_of, foveate, tmp_path):
    recipe = recipe_of("dora")
    result = foveate("check", recipe, "tuning.exclude=[layers.7.*]")
    assert result.code == 2
    assert "'layers.7.*' matches no layer in language" in result.text


