"""Whether safetensors files are whole, from their headers and sizes alone."""

from __future__ import annotations

import json
from pathlib import Path

from foveate.errors import ModelError

_LENGTH = 8  # bytes before the header that say how long it is, little-endian
_MOST = 100_000_000  # bytes of a header: what safetensors itself takes


def require_whole_files(folder: Path) -> None:
    """Raises ModelError naming the first of the folder's safetensors files that is cut short or has no header."""
    for path in sorted(folder.glob("*.safetensors")):
        if problem := _problem(path):
            raise ModelError(problem, where=str(path), fix="download or copy it again")


def _problem(path: Path) -> str | None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if size < _LENGTH or length > min(_MOST, size - _LENGTH):
            return f"is no whole safetensors file: its {size:,} bytes do not hold its header"
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
            return f"is no safetensors file: its header can't be read ({error})"
    expected = _LENGTH + length + max(ends, default=0)
    return None if size == expected else f"is cut short or damaged: it has {size:,} bytes, its header says {expected:,}"
