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
    return lambda grounds: set(formula(skeleton, encoder, family_of(model.config), packs=True, grounds=grounds).terms)


def test_the_formula_of_some_media_is_that_of_all_without_the_others(terms):
    whole = terms(None)
    assert {term.per for term in whole} >= {"units pixel_values", "units pixel_values_videos", "tokens"}
    assert terms(IMAGES) == {term for term in whole if term.per not in VIDEOS}
    assert terms(TEXT) == {term for term in whole if term.per in TEXT}
    assert terms(IMAGES | VIDEOS) == whole
