"""Written weights carry the base model's names: every difference is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from foveate.errors import CheckpointError
from foveate.train.names import check_names

BASE = {"visual.patch.weight": (4, 3), "model.embed.weight": (10, 4), "lm_head.weight": (10, 4)}
OUT = Path("out")


def test_equal_names_and_shapes():
    found = check_names(BASE, dict(BASE), where=OUT)
    assert (found.tensors, found.left_out, found.resized) == (3, (), ())


def test_a_module_name_in_place_of_the_published_one_is_an_error():
    written = {"model.visual.patch.weight": (4, 3), "model.embed.weight": (10, 4), "lm_head.weight": (10, 4)}
    with pytest.raises(CheckpointError, match=r"written as model\.visual\.patch.weight, where the base model has visual\.patch"):
        check_names(BASE, written, where=OUT)


def test_a_tensor_that_the_base_does_not_have_is_an_error():
    with pytest.raises(CheckpointError, match="written as extra.weight, which the base model does not have"):
        check_names(BASE, {**BASE, "extra.weight": (1,)}, where=OUT)


def test_what_the_class_never_loads_is_told():
    written = {name: shape for name, shape in BASE.items() if name != "lm_head.weight"}
    assert check_names(BASE, written, where=OUT).left_out == ("lm_head.weight",)


def test_another_shape_is_an_error():
    with pytest.raises(CheckpointError, match=r"visual.patch.weight: \[4, 2\], in the base model \[4, 3\]"):
        check_names(BASE, {**BASE, "visual.patch.weight": (4, 2)}, where=OUT)


def test_rows_for_new_tokens_only_where_tokens_were_added():
    grown = {**BASE, "model.embed.weight": (12, 4), "lm_head.weight": (12, 4)}
    assert check_names(BASE, grown, where=OUT, added=True).resized == ("lm_head.weight", "model.embed.weight")
    with pytest.raises(CheckpointError, match="2 weights have another shape"):
        check_names(BASE, grown, where=OUT)
    with pytest.raises(CheckpointError, match="another shape"):  # embeddings and head of different sizes fit no vocabulary
        check_names(BASE, {**grown, "lm_head.weight": (11, 4)}, where=OUT, added=True)
    with pytest.raises(CheckpointError, match="another shape"):
        check_names(BASE, {**BASE, "model.embed.weight": (9, 4)}, where=OUT, added=True)
