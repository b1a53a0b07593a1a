"""No key is lost: every key of every published recipe has its row, every key of any recipe ends in exactly one note."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foveate.config.fields import all_fields
from foveate.config.recipe import Recipe
from foveate.errors import FoveateError, RecipeError
from foveate.migrate.automodel.keys import ROWS as AUTOMODEL_ROWS
from foveate.migrate.automodel.migrate import migrate_automodel
from foveate.migrate.draft import leaves
from foveate.migrate.llamafactory.keys import ROWS as LLAMAFACTORY_ROWS
from foveate.migrate.llamafactory.migrate import migrate_llamafactory
from foveate.migrate.options import Options
from foveate.migrate.read import Foreign
from tests.unit.migrate.recipes import INFO, loaded

_KEYS = Path(__file__).with_name("keys")
# Keys of the recipes under examples/vlm_finetune, vlm_kd and audio_finetune of NeMo Automodel; settings of LLaMA-Factory 0.9.5.
AUTOMODEL_KEYS = (_KEYS / "automodel.txt").read_text("utf-8").split()
LLAMAFACTORY_KEYS = (_KEYS / "llamafactory.txt").read_text("utf-8").split()
_ROWS = {"NeMo Automodel": AUTOMODEL_ROWS, "LLaMA-Factory": LLAMAFACTORY_ROWS}


@pytest.mark.parametrize(
    ("rows", "keys"), [(AUTOMODEL_ROWS, AUTOMODEL_KEYS), (LLAMAFACTORY_ROWS, LLAMAFACTORY_KEYS)], ids=["automodel", "llamafactory"]
)
def test_every_published_key_has_a_row(rows, keys):
    assert [key for key in keys if not any(row.covers(key) for row in rows)] == []


def test_every_argument_of_transformers_has_a_row():
    from transformers import Seq2SeqTrainingArguments

    names = [field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)]
    assert [name for name in names if not any(row.covers(name) for row in LLAMAFACTORY_ROWS)] == []


@pytest.mark.parametrize("rows", _ROWS.values(), ids=_ROWS)
def test_rows_point_at_keys_of_the_recipe(rows):
    known = {path for path, _ in all_fields(Recipe)}
    assert [row.to for row in rows if row.to and row.to not in known] == []
    assert [row.keys for row in rows if not row.to and not row.why] == []


@pytest.mark.parametrize("rows", _ROWS.values(), ids=_ROWS)
def test_no_row_hides_another(rows):
    """A plain key belongs to its own row, not to an earlier one with a wildcard."""
    for number, row in enumerate(rows):
        for key in row.keys.split():
            if "*" not in key:
                assert next(index for index, other in enumerate(rows) if other.covers(key)) == number, key


def nested(keys: list[str], values: list) -> dict:
    """Keys as sections; a key whose section is already a value is left out."""
    tree: dict = {}
    for key, value in zip(keys, values, strict=True):
        node, words = tree, key.split(".")
        for word in words[:-1]:
            node = node.setdefault(word, {}) if isinstance(node, dict) else node
        if isinstance(node, dict) and words[-1] not in node:
            node[words[-1]] = value
    return tree


_TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8)
_WORDS = st.sampled_from(["cosine", "full", "adamw", "a,b", "1e-4", "train[:10]", "fsdp2", "${X}", "steps"])
_NUMBERS = st.one_of(st.integers(-3, 10**6), st.floats(-1, 1e3))
_VALUES = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS, _WORDS, st.lists(st.integers(0, 9), max_size=3))


def trees(keys: list[str]) -> st.SearchStrategy[dict]:
    chosen = st.lists(st.sampled_from([*keys, "wibble", "optimizer.wobble"]), unique=True, max_size=40)
    return chosen.flatmap(lambda some: st.lists(_VALUES, min_size=len(some), max_size=len(some)).map(lambda values: nested(some, values)))


def check(tmp_path: Path, foreign: Foreign, migrate) -> None:
    try:
        migration = migrate(foreign, Options(base=tmp_path, dataset_info=tmp_path / "info.json"))
    except FoveateError:
        return  # said so, and nothing was made
    keys = [note.key for note in migration.notes]
    assert len(keys) == len(set(keys))
    assert {key for key, _ in leaves(foreign.tree)} == {key for key in keys if not key.startswith("(")}
    assert all(note.why or note.state == "mapped" for note in migration.notes)
    try:
        loaded(tmp_path, migration, X="1")
    except RecipeError as error:  # what the source says of two keys together may be as impossible there
        assert {problem.path for problem in error.problems} <= {"optim.warmup"}, error


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees(AUTOMODEL_KEYS))
def test_any_automodel_recipe_ends_in_one_note_a_key(tmp_path, tree):
    check(tmp_path, Foreign(kind="NeMo Automodel", path=Path("a.yaml"), tree=tree), migrate_automodel)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=trees(LLAMAFACTORY_KEYS))
def test_any_llamafactory_recipe_ends_in_one_note_a_key(tmp_path, tree):
    (tmp_path / "info.json").write_text(json.dumps(INFO), encoding="utf-8")
    tree |= {"dataset": "shots", "stage": "sft"}
    check(tmp_path, Foreign(kind="LLaMA-Factory", path=Path("a.yaml"), tree=tree), migrate_llamafactory)


@pytest.mark.parametrize("kind", _ROWS)
def test_every_row_with_a_counterpart_reaches_it(tmp_path, kind):
    """With a value of the right type, a key that the table maps is not reported as one that nothing asks for."""
    (tmp_path / "info.json").write_text(json.dumps(INFO), encoding="utf-8")
    keys = AUTOMODEL_KEYS if kind == "NeMo Automodel" else LLAMAFACTORY_KEYS
    values = json.loads((_KEYS / "values.json").read_text("utf-8"))
    migrate = migrate_automodel if kind == "NeMo Automodel" else migrate_llamafactory
    for key in keys:
        row = next(row for row in _ROWS[kind] if row.covers(key))
        if not row.to:
            continue
        beside = dict(values["with"][kind])
        if key in values["functions"]:
            beside[f"{key.partition('.')[0]}._target_"] = values["functions"][key]
        tree = nested([key, *beside], [values["values"].get(key, 2), *beside.values()])
        foreign = Foreign(kind=kind, path=Path("a.yaml"), tree=tree)
        migration = migrate(foreign, Options(base=tmp_path, dataset_info=tmp_path / "info.json"))
        found = next(note for note in migration.notes if note.key == key)
        assert not found.why.startswith("nothing else asks"), (key, found)
        loaded(tmp_path, migration)
