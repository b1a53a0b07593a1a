"""Sizes of files as options take them."""

from __future__ import annotations

from foveate.errors import FoveateError


def size_bytes(text: str, option: str) -> int:
    """`5GB` and `5G` are 5,000,000,000; `5GiB` is 5,368,709,120. Raises FoveateError, naming `option`, for anything else."""
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        size = 0
    if size < 1:
        raise FoveateError(f"{text!r} is no size", where=option, fix="write 5GB or 500MB")
    return size
