"""The boundary to users' own functions: whatever they raise is told as their mistake, with the line of theirs that raised it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import foveate
from foveate.errors import FoveateError

_PACKAGE = Path(foveate.__file__).parent


class UserCode:
    """`with UserCode(tell): result = function(...)`. An exception of the function comes out as the error that `tell` makes.

    `tell` is given what was raised and where: ` at mine.py:5 (adapt): KeyError: 'scan'`. Users raise exceptions of any class, also their
    own, so none can be listed; an interrupt and exhausted memory are not the function's fault and pass through.
    """

    def __init__(self, tell: Callable[[str], FoveateError]) -> None:
        self._tell = tell

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ours = isinstance(error, (FoveateError, MemoryError)) or not isinstance(error, (Exception, SystemExit))
        if error is not None and not ours:
            raise self._tell(described(error)) from error


def described(error: BaseException) -> str:
    """The place and the error. The place is the last line in the file that was called first: libraries that it uses say less."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_caller(frame.filename)]
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno} ({own[-1].name})" if own else ""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{place}: {text}"


def _is_caller(file: str) -> bool:
    """Whether a frame is Foveate's call, or Python's own importing."""
    return file.startswith("<frozen ") or Path(file).is_relative_to(_PACKAGE)
