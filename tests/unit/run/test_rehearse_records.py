"""The records that a rehearsal chooses, and the recipe that it makes of the user's."""

from __future__ import annotations

import pytest

from foveate.config.data import DataSection, SourceSection
from foveate.config.load import load_recipe
from foveate.config.media import MediaSection
from foveate.config.recipe import Recipe
from foveate.config.tuning import TuningSection
from foveate.data.mixture import build_mixture
from foveate.encode.encoder import Encoder
from foveate.errors import DataError, RecipeError
from foveate.run.rehearsal.records import MOST, choose, require_few_bad, spread
from foveate.run.rehearsal.rehearsed import STEPS, changes, loosened, rehearsed_recipe
from foveate.run.rehearsal.stand_in import StandIn
from tests import families
from tests.e2e.conftest import picture, write_jsonl

RULES = MediaSection()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(families.processor("smolvlm"))


@pytest.fixture
def mixture(tmp_path):
    """Two sources: pictures, of which number 5 has two and number 17 a long question; and text alone."""
    rows = []
    for number in range(30):
        names = [f"{number}-{i}.png" for i in range(2 if number == 5 else 1)]
        for name in names:
            picture("red").save(tmp_path / name)
        parts = [{"type": "image", "image": name} for name in names]
        parts.append({"type": "text", "text": "What color is it?" * (9 if number == 17 else 1)})
        rows.append({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "red"}]})
    write_jsonl(tmp_path / "pictures.jsonl", rows)
    write_jsonl(tmp_path / "text.jsonl", [{"question": f"Is {number} two?", "answer": "no"} for number in range(3)])
    return build_mixture([SourceSection(path=str(tmp_path / name)) for name in ("pictures.jsonl", "text.jsonl")])


def test_the_records_most_likely_to_fail_are_chosen(mixture, encoder):
    chosen = choose(mixture, "train", encoder=encoder, max_tokens=4096, rules=RULES)
    reasons = {str(mixture.origin(place)).rpartition("/")[2]: why for place, why in chosen.reasons.items()}
    assert "first" in reasons["pictures.jsonl row 0"]
    assert "longest" in reasons["pictures.jsonl row 17"]
    assert "most media" in reasons["pictures.jsonl row 5"]
    assert "text alone" in reasons["text.jsonl row 0"]
    assert len(reasons) <= MOST + 2
    assert chosen.looked_at == 33
    assert 0 < chosen.trained < chosen.tokens
    pictures, text = chosen.rows
    assert {0, 5, 17} <= set(pictures) and text and set(text) <= {0, 1, 2}


def test_the_ends_of_every_source_are_looked_at_however_large_it_is(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"question": f"{n}?", "answer": "yes"} for n in range(500)])
    write_jsonl(tmp_path / "b.jsonl", [{"question": f"{n}?", "answer": "yes"} for n in range(3)])
    large = build_mixture([SourceSection(path=str(tmp_path / "a.jsonl"), weight=2.0), SourceSection(path=str(tmp_path / "b.jsonl"))])
    places = list(spread(large, 20))
    rows = [large.locate(place) for place in places]
    assert len(rows) == len(set(rows)) <= 20
    assert {(0, 0), (0, 499), (1, 0), (1, 2)} <= set(rows)


def test_bad_records_stop_it_where_they_would_stop_training(mixture, encoder, tmp_path):
    (tmp_path / "3-0.png").unlink()
    chosen = choose(mixture, "train", encoder=encoder, max_tokens=4096, rules=RULES)
    assert [line.origin.row for line in chosen.bad] == [3]
    assert 3 not in chosen.rows[0]
    with pytest.raises(DataError, match="row 3: image_missing") as caught:
        require_few_bad([chosen], 0)
    assert caught.value.reason == "image_missing"
    require_few_bad([chosen], "5%")  # one of the 33 that there are


def test_no_record_that_fits_is_said_with_the_first_ones_reason(mixture, encoder):
    with pytest.raises(DataError, match="none of 33 records can be used") as caught:
        choose(mixture, "train", encoder=encoder, max_tokens=3, rules=RULES)
    assert caught.value.reason == "too_long"


def test_rows_pick_records_after_split_and_limit_and_refuse_what_is_not_there(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"question": f"{n}?", "answer": str(n)} for n in range(10)])
    mixture = build_mixture([SourceSection(path=str(path), split="train[4:]", limit=5, rows=[3, 0, 3])])
    assert [mixture.conversation(place).messages[-1].text for place in range(len(mixture))] == ["4", "7"]
    assert [mixture.origin(place).row for place in range(2)] == [4, 7]
    with pytest.raises(DataError, match="`rows` names record 5, and there are 5") as caught:
        build_mixture([SourceSection(path=str(path), limit=5, rows=[5])])
    assert caught.value.reason == "bad_section"


def test_rows_of_a_stream_are_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("data: {train: [{hub: a/b, split: train, streaming: true, rows: [1]}]}\n")
    with pytest.raises(RecipeError, match="rows"):
        load_recipe(tmp_path / "recipe.yaml")


def test_the_rehearsed_recipe_keeps_what_the_user_wrote_and_says_what_it_does_not(mixture, encoder, tmp_path):
    text = """
model: {id: org/model, revision: main, dtype: float16, max_pixels: 3136}
tuning: {type: lora, targets: ['layers.31.*.q_proj', 'v_proj'], exclude: ['layers.[0-9].*'], dora: true}
data:
  train: [{path: pictures.jsonl, weight: 0.3}, {path: text.jsonl}]
  eval: [{path: text.jsonl}]
batch: {size: 64, max_tokens: 1234, micro_size: 16}
optim: {lr: 3e-4, schedule: linear, warmup: 500, weight_decay: 0.1}
train: {steps: 100000, device: cuda, best: exact_match, gradient_checkpointing: true}
evaluate: {metrics: [loss, exact_match], max_new_tokens: 512, limit: 100}
log: [tensorboard]
"""
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    stand_in = StandIn(folder=tmp_path / "model", family="smolvlm", own=True, said="")
    train = choose(mixture, "train", encoder=encoder, max_tokens=4096, rules=RULES)
    held_out = choose(build_mixture(recipe.data.eval), "eval", encoder=encoder, max_tokens=4096, rules=RULES)
    made = rehearsed_recipe(recipe, stand_in, train, held_out, tmp_path / "out", nproc=1)
    again = Recipe.model_validate(made.model_dump())  # valid as a whole
    assert again == made
    assert made.optim == recipe.optim.model_copy(update={"warmup": 2.0})
    assert (made.train.steps, made.train.device, made.train.output) == (STEPS, "cpu", str(tmp_path / "out"))
    assert (made.train.best, made.train.gradient_checkpointing, made.evaluate.metrics) == ("exact_match", "full", ["loss", "exact_match"])
    assert made.tuning.dora and made.tuning.targets == ["layers.*.*.q_proj", "v_proj"] and made.tuning.exclude == []
    assert (made.batch.size, made.batch.max_tokens, made.batch.micro_size) == (4, 1234, 4)
    assert (made.model.id, made.model.revision, made.model.max_pixels) == (str(tmp_path / "model"), None, 3136)
    assert [source.rows for source in made.data.train] == train.rows
    said = " ".join(changes(recipe, made))
    for word in ("cuda", "float16", "a number stands for any layer", "batch.size", "weights and counts"):
        assert word in said


def test_every_setting_that_is_changed_is_said_with_both_values(mixture, encoder, tmp_path):
    write_jsonl(tmp_path / "eval.jsonl", [{"question": "Is it two?", "answer": "no"}])
    text = """
model:
  id: org/model
  template_options: {deep: true}
  quantize: {bits: 8, backend: torchao, parts: [language, vision], skip: ['layers.3.*', 'patch_embed']}
tuning: {exclude: ['layers.[0-9].*', 'merger'], targets: ['layers.31.q_proj']}
data: {train: [{path: eval.jsonl, weight: 2}], eval: [{path: eval.jsonl, limit: 1}], workers: 6}
batch: {size: 64, micro_size: 16}
optim: {warmup: 500}
train: {steps: 900, device: cuda, eval_every: 300}
evaluate: {metrics: [loss, exact_match], max_new_tokens: 512, limit: 100, batch_size: 32, gallery: 99}
parallel: {timeout_s: 3000}
"""
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    chosen = choose(mixture, "train", encoder=encoder, max_tokens=4096, rules=RULES)
    held_out = choose(build_mixture(recipe.data.eval), "eval", encoder=encoder, max_tokens=4096, rules=RULES)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": list(mixture.sections)})})
    stand_in = StandIn(folder=tmp_path / "model", family="smolvlm", own=False, said="")
    made = rehearsed_recipe(recipe, stand_in, chosen, held_out, tmp_path / "out", nproc=1)
    first, *lines = changes(recipe, made)
    assert "6 steps" in first and "weights and counts" in first
    said = dict(line.split(": ", 1) for line in lines)
    assert said["optim.warmup"] == "2.0 in place of 500.0"
    assert said["model.quantize.skip"].startswith('"patch_embed" in place of "layers.3.*", "patch_embed"')
    assert said["model.template_options.deep"].startswith("left out, was true")
    assert said["tuning.exclude"].startswith('"merger" in place of "layers.[0-9].*", "merger"')
    assert said["train.device"].startswith('"cpu" in place of "cuda"')
    assert said["evaluate.limit"] == "1 in place of 100"
    plain = {"batch.size", "batch.micro_size", "data.workers", "parallel.timeout_s", "tuning.targets", "train.precision"}
    plain |= {f"evaluate.{name}" for name in ("max_new_tokens", "batch_size", "gallery")}
    reasoned = {"optim.warmup", "model.quantize.skip", "model.template_options.deep", "tuning.exclude", "train.device", "evaluate.limit"}
    assert said.keys() == plain | reasoned


def test_a_recipe_without_held_out_data_or_warm_up_gets_neither(mixture, encoder, tmp_path):
    recipe = Recipe(data=DataSection(train=list(mixture.sections)), optim={"warmup": 0.0})
    train = choose(mixture, "train", encoder=encoder, max_tokens=4096, rules=RULES)
    stand_in = StandIn(folder=tmp_path, family="smolvlm", own=False, said="")
    made = rehearsed_recipe(recipe, stand_in, train, None, tmp_path / "out", nproc=2)
    assert (made.train.eval_every, made.data.eval, made.optim.warmup) == (None, [], 0.0)


def test_a_built_tokenizer_gets_room_for_the_longest_record(mixture, encoder, tmp_path):
    recipe = Recipe(data=DataSection(train=list(mixture.sections)), batch={"max_tokens": 8})
    train = choose(mixture, "train", encoder=encoder, max_tokens=4096, rules=RULES)
    for own, most in ((False, train.longest), (True, 8)):
        stand_in = StandIn(folder=tmp_path, family="smolvlm", own=own, said="")
        assert rehearsed_recipe(recipe, stand_in, train, None, tmp_path / "out", nproc=1).batch.max_tokens == most


@pytest.mark.parametrize(
    ("name", "any_layer"),
    [
        ("layers.31.self_attn.q_proj", "layers.*.self_attn.q_proj"),
        ("*.layers.[0-9].*", "*.layers.*.*"),
        ("blocks.1[0-5]", "blocks.*"),
        ("*.q_proj", "*.q_proj"),
        ("fc1", "fc1"),
        ("mlp.2x.down", "mlp.2x.down"),
    ],
)
def test_numbers_of_layers_stand_for_any_layer(name, any_layer):
    assert loosened(TuningSection(targets=[name])).targets == [any_layer]
    assert loosened(TuningSection(targets={"vision": [name]})).targets == {"vision": [any_layer]}
