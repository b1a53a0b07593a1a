"""What transformers does whenever it is imported and few need: here only once it is asked for. Nothing is lost by it, but time.

Seen with transformers 5.17 to 5.24; each part is left out where a version does not do it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _Late:
    """Functions that one of transformers' modules imports from another package as it starts."""

    source: str
    names: tuple[str, ...]
    importer: str


_LATE = (
    # Half a second, to match the boxes of object detectors; scipy comes with imagehash.
    _Late(source="scipy.optimize", names=("linear_sum_assignment",), importer="transformers.loss.loss_utils"),
    # A quarter of one, to load weights that torchao had quantised.
    _Late(
        source="torchao.prototype.safetensors.safetensors_support",
        names=("flatten_tensor_state_dict",),
        importer="transformers.quantizers.quantizer_torchao",
    ),
)


def import_sparingly() -> None:
    """Import what transformers' models share without the packages that few of them use. transformers is imported already. Idempotent."""
    _list_models_once()
    for late in _LATE:
        there = late.importer in sys.modules or late.source in sys.modules
        if not there and importlib.util.find_spec(late.source.split(".")[0]) is not None:
            # Where a version takes more of the package than is known here, it is imported as ever, by whoever comes next.
            with contextlib.suppress(ImportError), _standing_in(late):
                importlib.import_module(late.importer)


@contextlib.contextmanager
def _standing_in(late: _Late) -> Iterator[None]:
    """A module of functions that import the real one when they are called."""
    module = types.ModuleType(late.source)
    module.__dict__.update({name: _on_call(late.source, name) for name in late.names})
    sys.modules[late.source] = module
    try:
        yield
    finally:
        del sys.modules[late.source]


def _on_call(source: str, name: str) -> Callable[..., Any]:
    def called(*args: Any, **options: Any) -> Any:
        return vars(importlib.import_module(source))[name](*args, **options)

    return called


def _list_models_once() -> None:
    """transformers reads each of its 3,000 files to list its models, and `transformers.models` reads them again.

    Once as a folder, once as that folder's `__init__.py`, and what it knows it finds by the path. Can go once it looks by the folder.
    """
    from transformers.utils import import_utils

    found = vars(import_utils).get("create_import_structure_from_path")
    if found is None or "transformers.models" in sys.modules:
        return

    def by_folder(module_path: Any) -> Any:
        path = Path(module_path)
        return found(path.parent if path.name == "__init__.py" and path.parent.name == "models" else module_path)

    import_utils.create_import_structure_from_path = by_folder
    try:
        importlib.import_module("transformers.models")
    finally:
        import_utils.create_import_structure_from_path = found
