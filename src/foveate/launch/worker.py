"""What the launcher starts for every rank: `python -m foveate.launch.worker PROGRAM ARGUMENTS...`, PROGRAM a file or `-m module`."""

from __future__ import annotations

import ctypes
import runpy
import signal
import sys

from foveate.errors import FoveateError
from foveate.launch.failure import EXIT_USER_ERROR, record_failure, record_uncaught

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs the program as `__main__`; what ends it goes to the launcher."""
    end_with_parent()
    record_uncaught()
    program, *arguments = sys.argv[1:]
    try:
        if program == "-m":
            module, *arguments = arguments
            sys.argv = [module, *arguments]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            sys.argv = [program, *arguments]
            runpy.run_path(program, run_name="__main__")
    except FoveateError as error:
        record_failure(error)
        sys.exit(EXIT_USER_ERROR)


def end_with_parent() -> None:
    """Asks Linux to end this process when the launcher is killed, so that no rank is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
