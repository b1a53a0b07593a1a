"""Conversations encoded with their media apart (types.Unit): found in the cache of features, whose media are then not even decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from foveate.batching.frames import as_images
from foveate.config.media import MediaSection
from foveate.data.media.identity import identity
from foveate.data.store import Store
from foveate.encode.encoder import Encoder
from foveate.model.families import Family
from foveate.model.trial import stand_in
from foveate.types import Conversation, Example, Unit, kind_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Cacheable:
    """What the trial of a model and its processor has shown."""

    kinds: frozenset[str]  # kinds of media whose features can be kept
    pixels: frozenset[str]  # inputs that nothing but their feature methods looks at
    outlined: frozenset[str]  # kinds that are encoded from headers alone exactly as they are when decoded


class UnitEncoder:
    """Encodes conversations, their media apart. Picklable; reads the store, never writes it."""

    def __init__(self, encoder: Encoder, family: Family, cacheable: Cacheable, *, store: Store, towers: str, rules: MediaSection) -> None:
        self._encoder, self._family, self._cacheable, self._store, self._towers = encoder, family, cacheable, store, towers
        self._rules = rules

    def __call__(self, conversation: Conversation) -> Example:
        """As Encoder has it, but that `media` hold stand-ins for what is in `unit`. Raises DataError, TemplateError."""
        kinds = {kind_of(medium) for medium in conversation.media}
        if not kinds & self._cacheable.kinds:
            return self._encoder(conversation)
        key = self._key(conversation) if kinds <= self._cacheable.kinds else None
        features = self._store.load(key) if key is not None else None
        if features is not None and kinds <= self._cacheable.outlined:
            return self._apart(self._encoder.outline(conversation), Unit(key=key, features=features))
        example = self._encoder(conversation)
        if features is not None:
            return self._apart(example, Unit(key=key, features=features))
        if key is not None and self._key(conversation) != key:  # a file was written to in the meantime
            key = None
        return self._apart(example, Unit(key=key))

    def _apart(self, example: Example, unit: Unit) -> Example:
        example = as_images(example) if self._family.frames_are_images else example
        if unit.features is None:
            unit = replace(unit, media=example.media)
        media = {name: stand_in(tensor) if name in self._cacheable.pixels else tensor for name, tensor in example.media.items()}
        return replace(example, media=media, unit=unit)

    def _key(self, conversation: Conversation) -> str:
        return unit_key(self._towers, identity(conversation, rules=self._rules))


def unit_key(towers: str, media: Sequence[str]) -> str:
    """The name of a conversation's features; `towers` stands for all that they are computed with."""
    return hashlib.sha256("\n".join([towers, *media]).encode()).hexdigest()
