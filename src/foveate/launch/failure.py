"""How a process of a run tells its launcher why it ends: one small file each, so that the user sees the first cause only. No torch here."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from foveate.errors import FoveateError

FOLDER_VARIABLE = "FOVEATE_FAILURES"  # set by the launcher: where processes leave their reasons
EXIT_USER_ERROR, EXIT_BUG = 2, 1
_LINGER_S = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a process ended."""

    rank: int
    time_ns: int
    expected: bool  # a FoveateError: the message is for the user; else a bug or a lost connection, with its traceback
    text: str

    @property
    def exit_code(self) -> int:
        """2 for an error of the user's input or surroundings, else 1."""
        return EXIT_USER_ERROR if self.expected else EXIT_BUG


def record_failure(error: BaseException, message: str | None = None) -> bool:
    """Leaves the reason for the launcher, which shows it; False (nothing done) in a process that was not launched.

    `message` is the text to show for a FoveateError, its own when unset. Only a process's first reason counts. The process has 15 s
    to end from here on: a process group may wait in its destructor for processes that are waiting for this one.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return False
    expected = isinstance(error, FoveateError)
    text = (message or str(error)) if expected else "".join(traceback.format_exception(error)).rstrip()
    rank = int(os.environ.get("RANK", "0"))
    path = Path(folder) / f"rank-{rank}.json"
    if not path.exists():
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(Failure(rank=rank, time_ns=time.time_ns(), expected=expected, text=text))), encoding="utf-8")
        os.replace(part, path)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_LINGER_S)
    return True


def read_failures(folder: Path) -> list[Failure]:
    """The reasons left so far, the first one first."""
    found = [Failure(**json.loads(path.read_text(encoding="utf-8"))) for path in folder.glob("rank-*.json")]
    return sorted(found, key=lambda failure: failure.time_ns)


def record_uncaught() -> None:
    """Makes this process leave its reason instead of printing a traceback when an exception ends it."""

    def hook(kind: type[BaseException], error: BaseException, trace: object) -> None:
        if issubclass(kind, KeyboardInterrupt) or not record_failure(error):
            sys.__excepthook__(kind, error, error.__traceback__)

    sys.excepthook = hook
