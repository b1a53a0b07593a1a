"""docs/recipe.md is what the types say, and links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.unit.docs.pages import DOCS, ROOT

PAGES = sorted(path.name for path in DOCS.glob("*.md"))


def test_the_committed_reference_is_what_the_script_makes():
    done = subprocess.run([sys.executable, "docs/make_reference.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_key_of_the_recipe_is_in_it():
    from foveate.config.fields import all_fields
    from foveate.config.recipe import Recipe

    text = (DOCS / "recipe.md").read_text("utf-8")
    assert [path for path, _ in all_fields(Recipe) if f"`{path.rpartition('.')[2]}`" not in text] == []


def anchors(page: str) -> set[str]:
    """GitHub's anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", (DOCS / page).read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", (DOCS / page).read_text("utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        assert (DOCS / (name or page)).is_file(), target
        assert not anchor or anchor in anchors(name or page), target
