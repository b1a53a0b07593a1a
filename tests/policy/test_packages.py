"""pyproject.toml says what is used and no more; constraints.txt pins within its ranges."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.policy.source import ROOT, python_files, repository_files

# A distribution's name where it differs from the module's.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "ruamel": "ruamel-yaml",
    "sklearn": "scikit-learn",
    "av": "av",
    "pydantic_core": "pydantic",
}
# Never imported by Foveate, but needed by transformers for models that Foveate supports.
# matplotlib: demo/draw_shapes.py opens the fonts that it carries.
NEEDED_BY_OTHERS = {"num2words", "bitsandbytes", "timm", "pytest-xdist", "matplotlib"}
NOT_SET_UP = ("wandb", "mlflow", "kernels")  # extras that scripts/setup.sh leaves out
IMPORTING = ("importlib.import_module", "import_module", "pytest.importorskip")
RUN_AS_COMMANDS = {"ruff", "import-linter", "pytest"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def declared(*extras: str) -> dict[str, Requirement]:
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(item.name): item for item in map(Requirement, texts)}


def imported(*folders: str) -> set[str]:
    names: set[str] = set()
    for path in python_files(*folders):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {item.name.partition(".")[0] for item in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORTING:
                names |= {str(item.value).partition(".")[0] for item in node.args if isinstance(item, ast.Constant)}
    own = {"foveate", "tests", "demo", "benchmarks", "__future__"} | {path.stem for path in python_files("demo")}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in names - own - sys.stdlib_module_names}


def test_every_import_is_declared():
    extras = [extra for extra in PROJECT["optional-dependencies"] if extra not in ("dev", "demo")]
    assert imported("src") - declared(*extras).keys() == set()
    assert imported("tests", "demo") - declared(*PROJECT["optional-dependencies"]).keys() == set()


def test_every_declared_package_is_used():
    used = imported("src", "tests", "demo") | NEEDED_BY_OTHERS | RUN_AS_COMMANDS
    assert declared(*PROJECT["optional-dependencies"]).keys() - used == set()


def test_constraints_are_exact_and_within_the_ranges():
    lines = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line)] == []
    pins = {canonicalize_name(item.name): next(iter(item.specifier)).version for item in map(Requirement, lines)}
    wanted = declared(*(extra for extra in PROJECT["optional-dependencies"] if extra not in NOT_SET_UP))
    assert wanted.keys() - pins.keys() == set()
    assert [name for name, item in wanted.items() if not item.specifier.contains(pins[name])] == []
    assert pins["torch"] == "2.13.0"
    assert [name for name in pins if name.startswith(("nvidia", "cuda", "triton"))] == []


def test_no_file_names_a_place_on_one_machine():
    places = ["/" + "work/", "/" + "opt/pypi", "/" + "opt/wheels", "/" + "root/", str(ROOT) + "/"]
    found = []
    for path in repository_files():
        raw = path.read_bytes()
        if b"\0" not in raw:
            found += [f"{path.relative_to(ROOT)}: {place}" for place in places if place.encode() in raw]
    assert found == []


def test_the_licence_is_there():
    assert PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
