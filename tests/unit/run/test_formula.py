"""The formula of a run's operations is made of no more blank conversations than the data asks for."""

from __future__ import annotations

import pytest

from foveate.encode.encoder import Encoder
from foveate.model.families import family_of, positions_of
from foveate.run.formula import formula
from tests import families
from tests.unit.model.test_memory import LORA, shadow_of

TEXT = {"tokens", "pairs", "targets", "rows"}
IMAGES = TEXT | {"units pixel_values", "squares pixel_values"}
VIDEOS = {"units pixel_values_videos", "squares pixel_values_videos"}


@pytest.fixture(scope="module")
def terms():
    model, processor = families.build("qwen2_5_vl")
    encoder, skeleton = Encoder(processor, positions=positions_of(model.config)), shadow_of(model, LORA)

    def found(grounds: set[str] | None) -> dict[tuple[str, str], float]:
        made = formula(skeleton, encoder, family_of(model.config), packs=True, grounds=grounds)
        sums = {(term.part, term.per): term.forward + term.backward for term in made.terms}
        # Turning positions into angles has no weight, so it is put down to what ran before, and is next to nothing.
        return {key: pytest.approx(value, rel=0.01) for key, value in sums.items() if value > 100}

    return found


def test_the_formula_of_some_media_is_that_of_all_without_the_others(terms):
    whole = terms(None)
    assert {per for _, per in whole} >= {"units pixel_values", "units pixel_values_videos", "tokens"}
    assert terms(IMAGES) == {key: value for key, value in whole.items() if key[1] not in VIDEOS}
    assert terms(TEXT) == {key: value for key, value in whole.items() if key[1] in TEXT}
    assert terms(IMAGES | VIDEOS) == whole
