"""The house rules that a machine can see, held over every Python file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.policy.source import ROOT, python_files, shown

FOLDERS = ("src", "tests", "demo", "benchmarks", "scripts")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
REFLECTION_ALLOWED = ROOT / "src/foveate/model/families.py"


def nodes(*folders: str) -> Iterator[tuple[Path, ast.AST]]:
    for path in python_files(*folders):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            yield path, node


def test_no_file_is_longer_than_400_lines():
    lengths = {shown(path): len(path.read_text("utf-8").splitlines()) for path in python_files(*FOLDERS)}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_60_lines():
    long = [
        f"{shown(path, node.lineno)} {node.name}: {node.end_lineno - node.lineno + 1}"
        for path, node in nodes(*FOLDERS)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_attributes_are_direct_but_for_the_table_of_families():
    found = [
        shown(path, node.lineno)
        for path, node in nodes("src")
        if isinstance(node, ast.Name) and node.id in ("getattr", "hasattr") and path != REFLECTION_ALLOWED
    ]
    assert found == []


def test_no_except_is_broad():
    found = []
    for path, node in nodes(*FOLDERS):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        if any(kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds):
            found.append(shown(path, node.lineno))
    assert found == []


def test_nothing_is_mocked():
    found = [
        shown(path, node.lineno)
        for path, node in nodes(*FOLDERS)
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unittest"))
        or (isinstance(node, ast.Import) and any(name.name.startswith(("unittest", "mock")) for name in node.names))
    ]
    assert found == []


def test_every_public_thing_has_a_docstring():
    missing = []
    for path in python_files("src"):
        tree = ast.parse(path.read_text("utf-8"))
        if tree.body and not ast.get_docstring(tree):
            missing.append(shown(path))
        missing += [
            f"{shown(path, node.lineno)} {node.name}"
            for node in tree.body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
        ]
    assert missing == []
