"""Random recipes: each loads, or is refused with every mistake's place; nothing else is ever raised."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foveate.config.dump import dump_recipe
from foveate.config.load import load_recipe
from foveate.config.recipe import Recipe
from foveate.errors import RecipeError
from tests.policy.source import ROOT

TEXTS = [path.read_text("utf-8") for path in sorted((ROOT / "recipes").glob("*.yaml"))]
SNIPPETS = st.sampled_from(
    [
        "[",
        "]",
        "{",
        "}",
        ":",
        ": ",
        "\n",
        "  ",
        "\t",
        "- ",
        "#",
        "'",
        '"',
        "&a",
        "*a",
        "!!python/object:os.system",
        "${HOME}",
        "${",
        "$",
        "1e-5",
        "no",
        "0x1f",
        "12:30:45",
        "null",
        "~",
        "-1",
        ".nan",
        "|",
        ">",
        "%",
        "---\n",
        "...",
        "\0",
        "é",
        "\ufeff",
        "<<: *a",
        "? ",
        "@",
        "`",
    ]
)
EDITS = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 12), SNIPPETS | st.text(max_size=3)), min_size=1, max_size=4)
SECTIONS = sorted(Recipe.model_fields)
FIELDS = sorted({field for section in Recipe.model_fields.values() for field in getattr(section.annotation, "model_fields", {})})
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 10**9), st.floats(), st.text(max_size=6), st.sampled_from(["auto", "lora", "1%", "vision"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3), max_leaves=6
)
RECIPES = st.dictionaries(
    st.sampled_from(SECTIONS) | st.text(max_size=4), st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4) | VALUES, max_size=5
)


def loads_or_is_refused(path: Path) -> None:
    try:
        recipe = load_recipe(path, (), env={"HOME": "home"})
    except RecipeError as error:
        assert error.problems and all(problem.where and problem.problem for problem in error.problems)
        return
    again = path.with_name("again.yaml")
    again.write_text(dump_recipe(recipe), "utf-8")
    assert dump_recipe(load_recipe(again, (), env={})) == dump_recipe(recipe)


@settings(max_examples=500, deadline=5000, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(text=st.sampled_from(TEXTS), edits=EDITS)
def test_an_edited_recipe(tmp_path_factory, text, edits):
    for place, cut, put in edits:
        at = place % (len(text) + 1)
        text = text[:at] + put + text[at + cut :]
    path = tmp_path_factory.getbasetemp() / "edited.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    loads_or_is_refused(path)


@settings(max_examples=500, deadline=5000, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(values=RECIPES)
def test_a_made_up_recipe(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "made_up.yaml"
    path.write_text(json.dumps(values), "utf-8")
    loads_or_is_refused(path)
