"""Which part a tensor belongs to, where names alone do not tell."""

from foveate.model.parts import part_of
from foveate.model.tiny import build


def test_layers_that_only_look_at_images_join_the_tower_to_the_language():
    model, _ = build("mllama")
    parts = part_of(model)
    assert {part for name, part in parts.items() if ".layers.1." in name and "language_model" in name} == {"projector"}
    assert {part for name, part in parts.items() if ".layers.0." in name and "language_model" in name} == {"language"}
