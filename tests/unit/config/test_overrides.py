"""`a.b=c` arguments and `${ENV}`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.recipes import DATA, load, problems


def test_overrides_follow_the_recipe_s_rules_and_later_ones_win(tmp_path: Path):
    recipe = load(
        tmp_path,
        DATA,
        "optim.lr=1e-3",
        "optim.lr=2e-5",
        "train.epochs=2",
        "log=[wandb]",
        "model.id=a/b",
        "model.revision=no",
        "data.train.0.prompt=What is it, a=b?",
        "data.train.1.use=cord_v2",
        "optim.max_grad_norm=",
        "tuning={type: full, parts: [head]}",
        "evaluate.limit = 3",
    )
    assert (recipe.optim.lr, recipe.train.epochs, recipe.log, recipe.model.revision) == (2e-5, 2.0, ["wandb"], "no")
    assert [source.use for source in recipe.data.train] == ["medpix", "cord_v2"]
    assert recipe.data.train[0].prompt == "What is it, a=b?"
    assert recipe.optim.max_grad_norm is None
    assert (recipe.tuning.type, recipe.tuning.parts, recipe.evaluate.limit) == ("full", ["head"], 3)


def test_an_override_mends_what_the_file_has_wrong(tmp_path: Path):
    recipe = load(tmp_path, DATA + "optim: {lr: many}\nmodel: {id: a/b, revision: '${UNSET}'}\n", "optim.lr=1e-4", "model.revision=main")
    assert recipe.optim.lr == 1e-4


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.lr", "optim.lr: is not an override; write `section.key=value`, e.g. optim.lr=2e-5"),
        ("optim..lr=1", "optim..lr: is not an override; write `section.key=value`, e.g. optim.lr=2e-5"),
        ("optim.lrr=1", "optim.lrr: unknown key; did you mean lr?"),
        ("optim.lr=fast", "optim.lr: is 'fast', but should be a number"),
        ("data.train.5.use=x", "data.train.5.use: data.train has 1 items, so the highest number is 1 (which adds one)"),
        ("data.train.use=x", "data.train.use: data.train is a list, so its items are numbers (data.train.0 …), not 'use'"),
        ("batch.size.x=1", "batch.size.x: batch.size is 4, which has no keys"),
        ("optim={lr:1e-4}", "optim: the space after the `:` of `lr:1e-4` is missing; write `lr: 1e-4`"),
        (
            "model.chat_template={% for m in messages %}",
            "model.chat_template: holds a template, which YAML can't read as it stands; put the template into a .jinja file and name that, "
            "or quote it within the shell's quotes: model.chat_template='\"...\"'",
        ),
        (
            "model.id=a: b: c",
            "model.id: is not YAML: mapping values are not allowed here; mend the value's syntax; if it is meant as text, "
            "quote it within the shell's quotes: model.id='\"...\"'",
        ),
        ("batch.size=&a 3", "batch.size: an anchor (&a) is not allowed; remove `&a` and write the value out"),
        ("batch.size={a: 1, a: 2}", "batch.size.a: stands twice (first at override 'batch.size={a: 1, a: 2}'); keep one of the two"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, expected: str):
    assert problems(tmp_path, DATA + "batch: {size: 4}\n", override)[0] == f"override '{override}': {expected}"


def test_a_long_override_is_shown_by_its_beginning(tmp_path: Path):
    (line,) = problems(tmp_path, DATA, "model.chat_template={% for m in messages %}\n" + "x" * 500)
    assert "messages %}↵xxx" in line and "…'" in line and len(line) < 400


def test_quoted_templates_and_keys_with_colons_are_left_alone(tmp_path: Path):
    overrides = ("model.chat_template='{% for m in messages %}{% endfor %}'", 'model.template_options={"a:b": null, c: [x:1]}')
    model = load(tmp_path, DATA, *overrides).model
    assert model.chat_template.startswith("{%") and model.template_options == {"a:b": None, "c": ["x:1"]}


def test_variables_are_filled_in_after_yaml(tmp_path: Path):
    text = DATA + (
        "optim:\n  lr: ${LR}\n"
        "batch:\n  size: ${SIZE:8}\n"
        "train:\n  seed: ${SEED:0}\n  output: ${OUT}/run\n"
        "model:\n  id: a/b\n  revision: '${REV}'\n  processor:\n"
        "    a: $${LR}\n    b: ${A} and $${A} and ${B:none}\n    c: ${TRICKY}\n    d: $5\n"
    )
    env = {"LR": "1e-3", "SIZE": "32", "OUT": "/data", "REV": "123", "A": "x: ${LR}", "TRICKY": "[1, 2]"}
    recipe = load(tmp_path, text, env=env)
    assert (recipe.optim.lr, recipe.batch.size, recipe.train.seed) == (1e-3, 32, 0)
    assert recipe.train.output == "/data/run"
    assert recipe.model.revision == "123"
    assert recipe.model.processor == {"a": "${LR}", "b": "x: ${LR} and ${A} and none", "c": "[1, 2]", "d": "$5"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${LR}", "the environment variable LR is not set; set it, or give a default: ${LR:value}"),
        ("${1X}", "`${` is not followed by a variable's name and `}`; write ${NAME} or ${NAME:default}; `$${` for a literal `${`"),
        ("${BIG}", "1e999 (from ${BIG}) is not a finite number; give it a number"),
        ("${WORD}", "is 'word', but should be a number"),
    ],
)
def test_a_variable_that_can_t_be_used_is_one_problem(tmp_path: Path, value: str, expected: str):
    found = problems(tmp_path, DATA + f"optim:\n  lr: {value}\n", env={"BIG": "1e999", "WORD": "word"})
    assert found == [f"recipe.yaml:3: optim.lr: {expected}"]


def test_an_unquoted_variable_in_a_flow_mapping_gets_its_own_hint(tmp_path: Path):
    assert "quote ${...}" in problems(tmp_path, DATA + "optim: {lr: ${LR}}\n", env={"LR": "1"})[0]


def test_paths_are_relative_to_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "my_model").mkdir()
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", "/home/someone")
    text = (
        "model: {id: my_model, chat_template: chat.jinja}\n"
        "data:\n  train:\n    - {path: sub/../a.jsonl, adapter: code.py:convert, media_root: ~/pictures}\n"
        "    - {hub: a/b, adapter: package.module:f}\n"
        "train: {output: ../runs}\n"
    )
    recipe = load(tmp_path, text, "data.eval.0.path=b.jsonl")
    assert (recipe.model.id, recipe.model.chat_template) == (str(tmp_path / "my_model"), str(tmp_path / "chat.jinja"))
    first, second = recipe.data.train
    assert (first.path, first.adapter) == (str(tmp_path / "a.jsonl"), f"{tmp_path}/code.py:convert")
    assert (first.media_root, second.adapter) == ("/home/someone/pictures", "package.module:f")
    assert (recipe.data.eval[0].path, recipe.train.output) == (str(here / "b.jsonl"), str(tmp_path.parent / "runs"))


def test_a_template_text_and_a_hub_id_stay_as_they_are(tmp_path: Path):
    recipe = load(
        tmp_path, DATA + "model: {id: Qwen/Qwen2.5-VL-3B-Instruct, chat_template: '{% for m in messages %}{{ m }}{% endfor %}'}\n"
    )
    assert recipe.model.id == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert recipe.model.chat_template.startswith("{% for")


def test_a_mistyped_model_folder_names_the_one_beside_it(tmp_path: Path):
    (tmp_path / "base").mkdir()
    assert load(tmp_path, DATA + "model: {id: basee}\n").model.id == "basee"  # nothing here that looks like a model
    (tmp_path / "base/config.json").write_text("{}")
    (line,) = problems(tmp_path, DATA + "model: {id: basee}\n")
    looked = "(looked for basee)"  # without the folder: see recipes.problems
    assert line == f"recipe.yaml:2: model.id: basee does not exist {looked}, and a hub id reads `org/name`; did you mean base?"
    assert load(tmp_path, DATA + "model: {id: org/basee}\n").model.id == "org/basee"


@pytest.mark.parametrize("value", ["./nowhere", "/nowhere/at/all", "../up.jinja", "my_template.json"])
def test_what_can_only_be_a_file_must_exist(tmp_path: Path, value: str):
    (line,) = problems(tmp_path, DATA + f"model: {{chat_template: {value}}}\n")
    assert line.startswith(f"recipe.yaml:2: model.chat_template: {value} does not exist (looked for ")
