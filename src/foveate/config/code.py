"""A user's own functions: found without running anything, run only once the user has allowed their file.

`foveate allow FILE` records the SHA-256 of a file. A recipe that names `FILE:function` runs it only while the hash is the
same, so a recipe from a stranger, or a file changed behind the user's back, runs nothing. What an allowed file imports in
turn is the user's own affair. The list is `$FOVEATE_HOME/allowed.json` (default `~/.config/foveate`).
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import tempfile
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.config.guard import UserCode
from foveate.config.suggest import listed, nearest
from foveate.errors import FoveateError


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Where a function is. All of `files` run when it is imported (`a/__init__.py` and `a/b.py` for `a.b:f`), last its own."""

    module: str | None  # None for a file given by path
    function: str | None
    files: tuple[Path, ...]


def load_function(spec: str, *, allow_code: bool) -> Callable[..., Any]:
    """The function named by `file.py:function`, `package.module:function` or `package.module.function`.

    Raises FoveateError, before anything of the file has run, when it can't be found, is part of Python itself, or is not
    on the allow list with its present contents (`allow_code` skips only this last check).
    """
    code = find_code(spec)
    if code.function is None:
        raise FoveateError("names no function", where=spec, fix=f"write {spec}:function")
    sources = {file: file.read_bytes() for file in code.files}
    if not allow_code:
        _check_allowed(spec, sources)
    own = code.files[-1]
    # Whatever a module raises while it is imported is the user's error, not a bug of ours.
    with UserCode(lambda what: FoveateError(f"failed while it was imported{what}", where=str(own), fix="mend the file")):
        module = _run_file(own, sources[own]) if code.module is None else importlib.import_module(code.module)
    return _function_of(module, code.function, own)


def find_code(spec: str) -> Code:
    """Locates the files behind `spec` without importing any. `spec` may also be a bare `file.py` or `package.module`."""
    file, colon, function = spec.rpartition(":")
    if not colon:
        file, function = spec, ""
    if file.endswith(".py"):
        path = Path(os.path.realpath(os.path.expanduser(file)))
        if not path.is_file():
            raise FoveateError("no such file", where=file, fix=_near_file(path))
        return Code(module=None, function=_identifier(function, spec) if colon else None, files=(path,))
    if "/" in file or not all(part.isidentifier() for part in file.split(".")):
        raise FoveateError("does not name a function", where=spec, fix="write file.py:function or package.module:function")
    if colon:
        return Code(module=file, function=_identifier(function, spec), files=_module_files(file, spec))
    try:
        return Code(module=file, function=None, files=_module_files(file, spec))
    except FoveateError:
        module, dot, name = file.rpartition(".")
        if not dot:
            raise
        return Code(module=module, function=name, files=_module_files(module, spec))


def _identifier(name: str, spec: str) -> str:
    if not name.isidentifier():
        raise FoveateError(f"{name!r} is not a function's name", where=spec, fix="write file.py:function or package.module:function")
    return name


def _near_file(path: Path) -> str:
    names = [entry.name for entry in path.parent.glob("*.py")] if path.parent.is_dir() else []
    near = nearest(path.name, names)
    return f"did you mean {path.parent / near}?" if near else "check the path"


def _module_files(module: str, spec: str) -> tuple[Path, ...]:
    """The source files that importing `module` runs. Each package's finder is asked directly: `find_spec` would import the parents."""
    parts = module.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] in sys.builtin_module_names:
        raise FoveateError(
            f"{parts[0]} is part of Python itself, not code for your records", where=spec, fix="name a function that you wrote"
        )
    files: list[Path] = []
    search: Any = None
    for depth in range(len(parts)):
        name = ".".join(parts[: depth + 1])
        found = next(filter(None, (finder.find_spec(name, search) for finder in sys.meta_path)), None)
        if found is None or (search is None and depth > 0):
            fix = "install it, or give the file's path: path/to/file.py:function"
            raise FoveateError(f"no module named {name}", where=spec, fix=fix)
        search = found.submodule_search_locations
        if found.origin is None or found.origin == "namespace":
            continue
        if not found.origin.endswith(".py"):
            raise FoveateError(f"{name} is not Python source ({found.origin})", where=spec, fix="name a function in a .py file")
        files.append(Path(os.path.realpath(found.origin)))
    if not files:
        raise FoveateError(f"{module} is a folder without code of its own", where=spec, fix="name a module in it")
    return tuple(files)


def _run_file(path: Path, source: bytes) -> types.ModuleType:
    """Runs exactly the bytes that were checked; the file is not read again. Data workers find the module by its name."""
    name = f"foveate_user_{path.stem}_{hashlib.sha256(bytes(path) + source).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module = types.ModuleType(name)
    module.__file__ = str(path)
    exec(compile(source, str(path), "exec"), module.__dict__)
    sys.modules[name] = module
    return module


def _function_of(module: types.ModuleType, name: str, file: Path) -> Callable[..., Any]:
    functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    found = vars(module).get(name)
    if found is None:
        near = nearest(name, functions)
        fix = f"did you mean {near}?" if near else f"it has: {listed(functions) or 'no functions'}"
        raise FoveateError(f"has no function {name}", where=str(file), fix=fix)
    if not callable(found):
        raise FoveateError(f"{name} is not a function but a {type(found).__name__}", where=str(file), fix="name a function")
    return found


def _sha256(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()


def _check_allowed(spec: str, sources: dict[Path, bytes]) -> None:
    known = allowed()
    for path, source in sources.items():
        recorded, now = known.get(path), _sha256(source)
        if recorded is None:
            raise FoveateError("has not been allowed to run", where=str(path), fix=f"read it, then run: foveate allow {spec}")
        if recorded != now:
            problem = f"has changed since it was allowed (SHA-256 was {recorded[:12]}…, is {now[:12]}…)"
            raise FoveateError(problem, where=str(path), fix=f"read what changed, then run: foveate allow {spec}")


def allow_list_path() -> Path:
    """`$FOVEATE_HOME/allowed.json`, by default in `~/.config/foveate`."""
    home = os.environ.get("FOVEATE_HOME")
    return (Path(home).expanduser() if home else Path.home() / ".config" / "foveate") / "allowed.json"


def allowed() -> dict[Path, str]:
    """The allow list: file -> SHA-256 of the contents that may run. Raises FoveateError if the list itself is damaged."""
    path = allow_list_path()
    try:
        files = json.loads(path.read_text("utf-8"))["files"]
        return {Path(file): str(digest) for file, digest in files.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise FoveateError(f"the allow list can't be read: {error}", where=str(path), fix="delete it and allow your files again") from error


def allow(spec_or_file: str) -> Path:
    """Records the present contents of the file behind `spec_or_file` (and of the packages it lies in); returns the file."""
    code = find_code(spec_or_file)
    _write({**allowed(), **{file: _sha256(file.read_bytes()) for file in code.files}})
    return code.files[-1]


def revoke(spec_or_file: str) -> Path:
    """Takes the file behind `spec_or_file` off the list (also one that is gone from the disk); FoveateError if it is not on it."""
    known = allowed()
    gone = Path(os.path.realpath(os.path.expanduser(spec_or_file.partition(":")[0])))
    path = gone if gone in known else find_code(spec_or_file).files[-1]
    if path not in known:
        raise FoveateError("is not on the allow list", where=str(path), fix="see `foveate allow --list`")
    _write({file: digest for file, digest in known.items() if file != path})
    return path


def _write(files: dict[Path, str]) -> None:
    path = allow_list_path()
    text = json.dumps({"version": 1, "files": {str(file): digest for file, digest in sorted(files.items())}}, indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # NamedTemporaryFile makes the file readable by its owner only; the rename makes the change whole or none.
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix="allowed.", delete=False, encoding="utf-8") as stage:
            stage.write(text + "\n")
        os.replace(stage.name, path)
    except OSError as error:
        raise FoveateError(
            f"the allow list can't be written: {error.strerror}", where=str(path), fix="set FOVEATE_HOME to a writable folder"
        ) from error
