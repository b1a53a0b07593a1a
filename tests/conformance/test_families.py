"""Every cell of docs/families.md, tried anew."""

from __future__ import annotations

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

from foveate.model import tiny
from tests.conformance.columns import row_of
from tests.conformance.page import Family, is_green, line_of
from tests.conformance.subject import subject
from tests.policy.source import ROOT

PAGE = ROOT / "docs/families.md"
PINNED = f"transformers=={transformers.__version__}\n" in (ROOT / "constraints.txt").read_text("utf-8")
pinned_only = pytest.mark.skipif(not PINNED, reason="the page is about the pinned version of transformers")


@pinned_only
@pytest.mark.parametrize("name", tiny.BUILDS)
def test_family(name: str) -> None:
    """The row is as the page has it, and nothing in it fails."""
    found = subject(name)
    family = Family(name=name, architecture=type(found.model).__name__, row=row_of(found))
    assert not [(column, says) for column, (state, says) in family.row.items() if state is False]
    assert line_of(family) in PAGE.read_text("utf-8").splitlines(), "the page differs; run python docs/make_families.py"


@pinned_only
def test_every_family_of_transformers_has_a_row_or_a_reason() -> None:
    """The union of the two mappings, each family exactly once."""
    wanted = set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES) | set(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)
    assert not set(tiny.BUILDS) & set(tiny.UNBUILT)
    assert wanted - set(tiny.BUILDS) - set(tiny.UNBUILT) == set() == set(tiny.UNBUILT) - wanted


def test_at_least_forty_families_are_green() -> None:
    """Counted on the page, whose lines the first test holds to be true, one for each family that is built."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    assert len(lines) == len(tiny.BUILDS) >= 40 and not [line for line in lines if "✗" in line]


@pytest.mark.parametrize(("state", "green"), [(True, True), (False, False), (None, True)])
def test_a_failed_cell_is_not_green(state: bool | None, green: bool) -> None:
    """What the page counts."""
    row = {"encodes": (True, "image"), "packs": (state, "")}
    family = Family(name="some", architecture="SomeModel", row=row)
    assert is_green(family) is green
    assert ("✗" in line_of(family)) is (state is False)
