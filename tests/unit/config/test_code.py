"""A user's function runs only from a file that the user has allowed, as it was then."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import sys
from pathlib import Path

import pytest

from foveate.config.code import allow, allow_list_path, allowed, load_function, revoke
from foveate.errors import FoveateError

GOOD = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\ndef convert(row):\n    return {'got': row}\nNUMBER = 3\n"


def refusal(spec: str, *, allow_code: bool = False) -> str:
    with pytest.raises(FoveateError) as caught:
        load_function(spec, allow_code=allow_code)
    return str(caught.value)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.py"
    path.write_text(GOOD)
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the path whose every module says that it ran."""
    folder = tmp_path / "some_package_of_a_user"
    (folder / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/__init__.py", "inner/tools.py"):
        (folder / name).write_text(GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


def ran(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.ran"))


def test_nothing_runs_before_it_is_allowed(adapter: Path):
    assert refusal(f"{adapter}:convert") == f"{adapter}: has not been allowed to run; read it, then run: foveate allow {adapter}:convert"
    assert ran(adapter.parent) == []
    assert allow(str(adapter)) == adapter
    assert ran(adapter.parent) == []
    assert load_function(f"{adapter}:convert", allow_code=False)(1) == {"got": 1}
    assert ran(adapter.parent) == ["adapter.ran"]


def test_a_changed_file_must_be_allowed_again(adapter: Path):
    allow(str(adapter))
    adapter.write_text(GOOD + "\n# harmless?\n")
    assert "has changed since it was allowed (SHA-256 was " in refusal(f"{adapter}:convert")
    assert ran(adapter.parent) == []
    allow(f"{adapter}:convert")
    assert load_function(f"{adapter}:convert", allow_code=False)


def test_allow_code_skips_the_list_only(adapter: Path):
    assert load_function(f"{adapter}:convert", allow_code=True)(2) == {"got": 2}
    assert "is part of Python itself" in refusal("os.system", allow_code=True)


@pytest.mark.parametrize(
    "spec", ["os.system", "os:system", "sys:exit", "builtins:exec", "subprocess.run", "posix:system", "importlib.util:find_spec"]
)
def test_python_s_own_modules_are_refused(spec: str):
    assert "is part of Python itself" in refusal(spec)


def test_a_package_is_found_without_running_it_and_all_its_files_count(package: Path):
    spec = f"{package.name}.inner.tools:convert"
    assert "has not been allowed to run" in refusal(spec)
    assert allow(spec) == package / "inner/tools.py"
    assert ran(package) == []
    assert set(allowed()) == {package / "__init__.py", package / "inner/__init__.py", package / "inner/tools.py"}
    (package / "__init__.py").write_text(GOOD + "\n# changed\n")
    assert "has changed" in refusal(spec)
    assert ran(package) == []
    allow(spec)
    assert load_function(spec.replace(":", "."), allow_code=False)(3) == {"got": 3}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("{folder}/adaptr.py:convert", "{folder}/adaptr.py: no such file; did you mean {folder}/adapter.py?"),
        ("{folder}/adapter.py:convrt", "{folder}/adapter.py: has no function convrt; did you mean convert?"),
        ("{folder}/adapter.py:NUMBER", "{folder}/adapter.py: NUMBER is not a function but a int; name a function"),
        ("{folder}/adapter.py", "{folder}/adapter.py: names no function; write {folder}/adapter.py:function"),
        (
            "{folder}/adapter.py:1+1",
            "{folder}/adapter.py:1+1: '1+1' is not a function's name; write file.py:function or package.module:function",
        ),
        (
            "no_such_package.inner:f",
            "no_such_package.inner:f: no module named no_such_package; install it, or give the file's path: path/to/file.py:function",
        ),
        ("a b:c", "a b:c: does not name a function; write file.py:function or package.module:function"),
        ("{folder}", "{folder}: does not name a function; write file.py:function or package.module:function"),
        ("math:sin", "math:sin: math is part of Python itself, not code for your records; name a function that you wrote"),
    ],
)
def test_a_spec_that_leads_nowhere(adapter: Path, spec: str, expected: str):
    folder = str(adapter.parent)
    assert refusal(spec.format(folder=folder), allow_code=True) == expected.format(folder=folder)


@pytest.mark.parametrize(
    "body", ["def f(:", "import no_such_module_here", "1 / 0", "raise RuntimeError('x')", "raise Exception('x')", "import sys; sys.exit(1)"]
)
def test_code_that_fails_on_import_is_the_user_s_error(tmp_path: Path, body: str):
    path = tmp_path / "broken.py"
    path.write_text(body + "\n")
    place = "" if body.startswith("def") else " at broken.py:1 (<module>)"  # Python names the line of a syntax error itself
    assert refusal(f"{path}:f", allow_code=True).startswith(f"{path}: failed while it was imported{place}: ")


def test_the_function_reaches_a_forked_worker(adapter: Path):
    function = load_function(f"{adapter}:convert", allow_code=True)
    assert pickle.loads(pickle.dumps(function)) is function
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(function, [1]) == [{"got": 1}]


def test_revoking_and_the_list_itself(adapter: Path, own_home: Path):
    allow(str(adapter))
    assert allow_list_path() == own_home / "allowed.json"
    assert list(json.loads(allow_list_path().read_text())["files"]) == [str(adapter)]
    assert allow_list_path().stat().st_mode & 0o077 == 0
    adapter.unlink()
    assert revoke(str(adapter)) == adapter
    assert allowed() == {}
    allow_list_path().write_text("{broken")
    with pytest.raises(FoveateError, match="the allow list can't be read"):
        allowed()
