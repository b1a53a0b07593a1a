"""`foveate train` from recipe to model, as a user runs it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.config.media import MediaSection
from tests.e2e.conftest import metrics, picture, write_jsonl, write_recipe, write_set


def test_a_run_leaves_everything_that_it_promises(work, model_dir, foveate):
    write_set(work, 12)
    write_set(work, 4, "eval.jsonl")
    recipe = write_recipe(
        work,
        model_dir,
        data={"train": [{"path": "train.jsonl"}], "eval": [{"path": "eval.jsonl"}], "workers": 1},
        evaluate={"metrics": ["loss", "exact_match"], "max_new_tokens": 4},
        train={"steps": 4, "eval_every": 2, "save_every": 2, "output": "run"},
    )
    result = foveate("train", recipe, "optim.lr=0.002", "log=[tensorboard]")
    assert result.code == 0, result.text
    run = work / "run"
    lines = metrics(run)
    assert [line["step"] for line in lines if line["event"] == "step"] == [1, 2, 3, 4]
    assert [(line["step"], line["stage"]) for line in lines if line["event"] == "eval"] == [(0, "before"), (2, "during"), (4, "after")]
    assert lines[2]["loss"] > 0
    assert lines[2]["padding"] == 0.0
    assert "lr: 0.002" in (run / "recipe.yaml").read_text()  # the effective recipe holds the overrides
    facts = json.loads((run / "run.json").read_text())
    assert facts["read"] == facts["used"] + facts["quarantined"] == 12
    assert list((run / "tensorboard").iterdir())
    page = (run / "report.html").read_text()
    assert "exact match" in page.lower()
    assert "data:image/" in page
    assert "read = " in result.text or "records read" in result.text
    assert str(run / "report.html") in result.out


def test_a_loss_that_is_not_finite_names_the_step_as_the_log_counts_it(work, model_dir, foveate):
    write_set(work, 8)
    result = foveate("train", write_recipe(work, model_dir), "tuning={type: full}", "optim={lr: 1e30, warmup: 0}")
    assert result.code == 2, result.text
    done = [line["step"] for line in metrics(work / "run") if line["event"] == "step"]
    assert f"at step {done[-1] + 1}; the weights were not updated" in result.err
    assert "from the last checkpoint if one was written" in result.err and not list((work / "run").glob("checkpoints/*"))


def test_the_adapter_loads_in_plain_peft_with_the_same_logits(work, model_dir, foveate):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    write_set(work, 8)
    template = (model_dir / "chat_template.jinja").read_text()
    (work / "own.jinja").write_text(template + "{# mine #}")
    recipe = write_recipe(work, model_dir, model={"id": str(model_dir), "chat_template": "own.jinja"}, optim={"lr": 0.05})
    assert foveate("train", recipe).code == 0
    processor = AutoProcessor.from_pretrained(work / "run" / "model")
    assert processor.chat_template.endswith("{# mine #}")
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(model_dir), work / "run" / "model").eval()
    inputs = processor(text=["User:<image>What color?\nAssistant:"], images=[picture("red")], return_tensors="pt")
    plain = AutoModelForImageTextToText.from_pretrained(model_dir).eval()
    with torch.no_grad():
        assert not torch.allclose(model(**inputs).logits, plain(**inputs).logits, atol=1e-3)  # the training is in it
    result = foveate("eval", work / "run", "data.eval=[{path: train.jsonl}]", "evaluate.metrics=[loss]", "--json")
    assert result.code == 0, result.text
    trained = json.loads(result.out)["metrics"]["loss"]
    assert trained < 0.97 * metrics(work / "run")[0]["loss"]


def test_full_tuning_exports_a_model_that_plain_transformers_loads(work, model_dir, foveate):
    from transformers import AutoModelForImageTextToText

    write_set(work, 8)
    recipe = write_recipe(work, model_dir, tuning={"type": "full", "parts": ["language", "projector"], "rank": 4})
    assert foveate("train", recipe).code == 0
    base = AutoModelForImageTextToText.from_pretrained(model_dir).state_dict()
    tuned = AutoModelForImageTextToText.from_pretrained(work / "run" / "model").state_dict()
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert any("text_model.layers" in name for name in changed)
    assert any("connector" in name for name in changed)
    assert not any("vision_model" in name for name in changed)


def test_the_same_recipe_and_seed_give_the_same_metrics(work, model_dir, foveate):
    write_set(work, 12)
    recipe = write_recipe(work, model_dir, tuning={"dropout": 0.1})
    assert foveate("train", recipe, "train.output=one").code == 0
    assert foveate("train", recipe, "train.output=two", "data.workers=2").code == 0
    assert metrics(work / "one") == metrics(work / "two")
    assert foveate("train", recipe, "train.output=three", "train.seed=1").code == 0
    assert metrics(work / "one") != metrics(work / "three")


def every_format(folder):
    """One image a format, all of a red disc in the upper left of a 48x40 picture; EXIF says how to turn the stored one."""
    upright = picture("red")
    grey = np.asarray(upright.convert("L"), dtype=np.uint16) * 257
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored picture is to be turned 90 degrees clockwise
    made = {
        "plain.jpg": lambda p: upright.save(p, quality=95),
        "plain.png": lambda p: upright.save(p),
        "plain.webp": lambda p: upright.save(p, lossless=True),
        "plain.bmp": lambda p: upright.save(p),
        "plain.tiff": lambda p: upright.save(p),
        "deep.png": lambda p: Image.fromarray(grey).save(p),
        "palette.png": lambda p: upright.quantize(32).save(p),
        "cmyk.jpg": lambda p: upright.convert("CMYK").save(p, quality=95),
        "turned.jpg": lambda p: turned.save(p, exif=exif, quality=95),
    }
    for name, save in made.items():
        save(folder / name)
    return list(made)


def test_every_image_format_trains_upright_and_in_rgb(work, model_dir, foveate):
    from foveate.data.media import open_image
    from foveate.types import Image as ImagePart

    names = every_format(work)
    rows = [{"image": name if i % 2 else str(work / name), "question": "What color?", "answer": "red"} for i, name in enumerate(names)]
    write_jsonl(work / "train.jsonl", rows)
    recipe = write_recipe(work, model_dir, train={"epochs": 1, "output": "run"})
    payload = json.loads(recipe.read_text())
    del payload["train"]["steps"]
    recipe.write_text(json.dumps(payload))
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    facts = json.loads((work / "run" / "run.json").read_text())
    assert (facts["read"], facts["used"], facts["quarantined"]) == (len(names), len(names), 0)
    wanted = np.asarray(picture("red"), dtype=int)
    for name in names:
        image = open_image(ImagePart(path=work / name), rules=MediaSection(max_image_pixels=10**6))
        assert (image.mode, image.size) == ("RGB", (48, 40)), name
        reference = np.asarray(picture("red").convert("L").convert("RGB"), dtype=int) if name == "deep.png" else wanted
        assert np.abs(np.asarray(image, dtype=int) - reference).mean() < 6, name


@pytest.mark.parametrize("tuning", [{"type": "lora"}, {"type": "full", "parts": ["vision", "projector", "language"]}])
def test_a_tiny_model_learns_what_it_is_shown(work, model_dir, foveate, tuning):
    write_set(work, 8)
    recipe = write_recipe(
        work, model_dir, tuning=tuning, optim={"lr": 0.003}, train={"steps": 25, "output": "run"}, batch={"size": 8, "max_tokens": 512}
    )
    assert foveate("train", recipe).code == 0
    losses = [line["loss"] for line in metrics(work / "run")]
    assert losses[-1] < 0.6 * losses[0]
