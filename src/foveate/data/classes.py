"""What a source's kind and schema say of its values: the names behind class numbers as `datasets` keeps them, and what null means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.data.sources.grouped import GroupedSource
from foveate.data.sources.hub import HubSource
from foveate.data.sources.stream import StreamSource
from foveate.data.sources.views import Joined, Picked, Window

if TYPE_CHECKING:
    from foveate.data.sources.source import Source


def class_names(source: Source, *path: str) -> tuple[str, ...]:
    """The classes' names of a column, or of a field inside it (`"objects", "category"`); () when the source knows none."""
    source = _innermost(source)
    if isinstance(source, HubSource):
        return _names(source.features(), path)
    return _names(_written_features(source.files[0]), path) if isinstance(source, GroupedSource) else ()


def fills_nulls(source: Source) -> bool:
    """Whether the source's rows are of Arrow's kind: a field that an object lacks is there as null."""
    return isinstance(_innermost(source), (HubSource, GroupedSource, StreamSource))


def _innermost(source: Source) -> Source:
    while isinstance(source, (Window, Picked, Joined)):
        source = source.whole
    return source


def _written_features(path: Path) -> Mapping[str, Any]:
    """What `datasets` wrote into a Parquet or Arrow file's schema; {} when something else wrote the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata if path.suffix in (".parquet", ".pq") else _arrow_metadata(path)
        return json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, pa.ArrowException):
        return {}


def _arrow_metadata(path: Path) -> Mapping[bytes, bytes] | None:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        try:
            return pa.ipc.open_file(file).schema.metadata
        except pa.ArrowInvalid:
            file.seek(0)
            return pa.ipc.open_stream(file).schema.metadata


def _names(features: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    """Walks the features: lists (`feature`, or a JSON list of one) are looked through; a ClassLabel holds the names."""
    for key in path:
        features = _inside_lists(features, until=key)
        features = features.get(key) if isinstance(features, Mapping) else None
    features = _inside_lists(features, until="names")
    return tuple(features["names"]) if isinstance(features, Mapping) and features.get("_type") == "ClassLabel" else ()


def _inside_lists(features: Any, *, until: str) -> Any:
    while True:
        if isinstance(features, list) and features:
            features = features[0]
        elif isinstance(features, Mapping) and until not in features and "feature" in features:
            features = features["feature"]
        else:
            return features
