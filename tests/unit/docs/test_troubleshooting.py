"""docs/troubleshooting.md has an entry for every reason code in the source, and none that is not there."""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.unit.docs.pages import SOURCE, first_cells

KINDS = ("image", "audio", "video")
GIVEN_A_REASON = ("DataError", "check_fields")  # what makes an error whose code is its argument `reason`


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"))


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def reasons_of(value: ast.expr, tree: ast.AST) -> set[str]:
    """The codes that an expression can give; a code that is built in another way than these must be added here."""
    match value:
        case ast.Constant(value=str(code)):
            return {code}
        case ast.IfExp():
            return reasons_of(value.body, tree) | reasons_of(value.orelse, tree)
        case ast.Attribute(attr="reason"):  # an error told again with its place
            return set()
        case ast.Name(id="reason"):  # the caller's: see GIVEN_A_REASON
            return set()
        case ast.JoinedStr():
            patterns = {"".join(chosen) for chosen in itertools.product(*(pieces_of(part, tree) for part in value.values))}
            return {pattern.replace("{kind}", kind) for pattern in patterns for kind in KINDS}
    raise AssertionError(f"line {value.lineno}: a reason that this test can't read: {ast.unparse(value)}")


def is_name(part: ast.expr, name: str) -> bool:
    return isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name) and part.value.id == name


def pieces_of(part: ast.expr, tree: ast.AST) -> list[str]:
    """What a piece of an f-string can be. `{reason}` is the second argument of the module's own `_error`; `{kind}` stays for later."""
    if isinstance(part, ast.Constant):
        return [part.value]
    if is_name(part, "kind"):
        return ["{kind}"]
    assert is_name(part, "reason"), ast.unparse(part)
    return sorted({code for call in calls(tree, "_error") for code in reasons_of(call.args[1], tree)})


def source_reasons() -> set[str]:
    found: set[str] = set()
    for _, tree in trees():
        for call in itertools.chain.from_iterable(calls(tree, name) for name in GIVEN_A_REASON):
            reason = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
            assert reason, f"line {call.lineno}: an error without a reason"
            found |= reasons_of(reason[0], tree)
    return found


def test_every_reason_has_an_entry_and_every_entry_a_reason():
    entries = first_cells("troubleshooting.md", "reason")
    assert [code for code, times in Counter(entries).items() if times > 1] == []
    assert set(entries) == source_reasons()
    assert len(entries) > 70


def test_every_other_message_is_still_in_the_source():
    texts = [node.value for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    messages = first_cells("troubleshooting.md", "message")
    assert len(messages) > 15
    assert [message for message in messages if not any(message in text for text in texts)] == []
