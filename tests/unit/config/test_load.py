"""What a recipe file may be, and how its values are typed."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from foveate.config.load import load_recipe
from foveate.errors import RecipeError
from tests.unit.config.recipes import DATA, load, problems


def one_problem(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    (problem,) = caught.value.problems
    return str(problem).replace(f"{path.parent}/", "")


def test_the_design_s_own_recipe_loads(tmp_path: Path):
    recipe = load(
        tmp_path,
        """
model: {id: Qwen/Qwen2.5-VL-3B-Instruct, dtype: bfloat16}
tuning: {type: lora, rank: 16, alpha: 32, parts: [language], also_full: [projector], freeze: [vision]}
data:
  train: [{use: medpix, split: "train"}, {path: my_xrays.jsonl, weight: 0.3, max_pixels: 1003520}]
  eval:  [{use: medpix, split: "validation[:500]"}]
batch: {size: 32, max_tokens: 8192, pack: true}
optim: {name: adamw, lr: 1e-4, schedule: cosine, warmup: 0.03, per_part: {projector: {lr: 2e-5}}, betas: [0.9, 0.95]}
train: {epochs: 1, eval_every: 200, save_every: 200, best: vqa_accuracy}
evaluate: {metrics: [loss, vqa_accuracy]}
parallel: {strategy: fsdp2}
log: [tensorboard, wandb]
""",
    )
    assert recipe.optim.lr == 1e-4
    assert recipe.optim.per_part["projector"].lr == 2e-5
    assert recipe.optim.betas == (0.9, 0.95)
    assert recipe.data.train[1].path == str(tmp_path / "my_xrays.jsonl")
    assert recipe.train.epochs == 1.0


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-5", 1e-5),
        ("no", "no"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),
        ("+.5", 0.5),
        ("true", True),
        ("'true'", "true"),
        ("~", None),
        ("NaN", "NaN"),
        ("[1, two, [3]]", [1, "two", [3]]),
    ],
)
def test_scalars_are_typed_by_yaml_1_2(tmp_path: Path, written: str, value: object):
    got = load(tmp_path, DATA + f"model: {{processor: {{x: {written}}}}}\n").model.processor["x"]
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    "encode", [lambda text: codecs.BOM_UTF8 + text.encode(), lambda text: text.encode("utf-16")], ids=["utf-8", "utf-16"]
)
def test_a_byte_order_mark_and_crlf_are_accepted(tmp_path: Path, encode):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(encode("data:\r\n  train:\r\n    - use: medpix\r\n      prompt: größer?\r\n"))
    assert load_recipe(path).data.train[0].prompt == "größer?"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "r.yaml: is empty; a recipe needs at least `data: {train: [{path: my_data.jsonl}]}`"),
        (b"# nothing but a comment\n", "r.yaml: is empty; a recipe needs at least a `data:` section"),
        (b"- data\n- model\n", "r.yaml:1: is a list; begin with sections such as `data:`"),
        (b"just words\n", "r.yaml:1: is a single value; begin with sections such as `data:`"),
        (b"data: \xff\xfe\xfa\n", "r.yaml: is not text: byte 6 is not UTF-8; give a YAML file saved as UTF-8"),
        (b"a: 1\nb: \x07\n", "r.yaml:2: is not YAML: character U+0007 is not allowed; remove it"),
        (b"data: 1\n---\nb: 2\n", "r.yaml:2: a second document (`---`) starts here; keep one document in the file"),
    ],
)
def test_a_file_that_is_no_recipe_gets_one_clear_problem(tmp_path: Path, content: bytes, expected: str):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value.problems[-1]).replace(f"{tmp_path}/", "") == expected


def test_broken_syntax_names_its_line(tmp_path: Path):
    text = problems(tmp_path, "data:\n  train: [{use: medpix}\nmodel: {}\n")
    assert len(text) == 1 and text[0].startswith("recipe.yaml:3: is not YAML: ")
    assert "indent with spaces" in problems(tmp_path, "data:\n\ttrain: []\n")[0]


def test_a_folder_a_missing_file_and_a_near_name(tmp_path: Path):
    (tmp_path / "demo.yaml").write_text(DATA)
    assert one_problem(tmp_path).endswith(f"is a folder; name a recipe file, e.g. {tmp_path.name}/demo.yaml")
    assert one_problem(tmp_path / "dmo.yaml") == "dmo.yaml: no such file; did you mean demo.yaml?"
    assert one_problem(tmp_path / "nowhere" / "x.yaml") == "x.yaml: no such file; check the path"


def test_what_would_hide_or_multiply_values_is_refused_at_its_line(tmp_path: Path):
    bomb = "x: &a [1]\ny: &b [*a, *a]\n"
    assert problems(tmp_path, DATA + bomb)[:3] == [
        "recipe.yaml:2: x: an anchor (&a) is not allowed; remove `&a` and write the value out",
        "recipe.yaml:3: y: an anchor (&b) is not allowed; remove `&b` and write the value out",
        "recipe.yaml:3: y.0: an alias (*a) is not allowed; write the value out",
    ]
    assert problems(tmp_path, DATA + "batch:\n  size: 4\n  size: 8\n") == [
        "recipe.yaml:4: batch.size: stands twice (first at recipe.yaml:3); keep one of the two"
    ]
    assert problems(tmp_path, DATA + "batch:\n  <<: {size: 4}\n") == [
        "recipe.yaml:3: batch: a merge key (<<) is not allowed; write the values out"
    ]
    assert problems(tmp_path, DATA + "batch: {size: !!int 4}\n") == [
        "recipe.yaml:2: batch.size: a tag (tag:yaml.org,2002:int) is not allowed; remove it; the schema knows each value's type"
    ]
    assert "a key must be a plain word" in problems(tmp_path, DATA + "? [a, b]\n: 1\n")[0]
    assert "nested more than 32 deep" in problems(tmp_path, DATA + "model: {processor: {x: " + "[" * 5000 + "]" * 5000 + "}}\n")[0]


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path):
    assert problems(tmp_path, DATA + "optim: {lr: .inf}\n") == [
        "recipe.yaml:2: optim.lr: .inf is not a finite number; write a number, or quote it if it is meant as text"
    ]
    assert len(problems(tmp_path, DATA + "optim: {lr: 1e999}\n")) == 1
    assert len(problems(tmp_path, DATA + f"batch: {{size: {'9' * 5000}}}\n")) == 1


def test_a_data_file_in_the_recipes_place_is_told_as_one(tmp_path):
    (tmp_path / "train.jsonl.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(RecipeError, match="is a data file, not a recipe; write a recipe for it: foveate init .*train.jsonl.gz"):
        load_recipe(tmp_path / "train.jsonl.gz")
