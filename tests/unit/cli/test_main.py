"""The command line's frame: help, exit codes, messages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from foveate.cli.main import COMMANDS, cli, main


def test_every_command_of_the_table_exists_and_is_described():
    for name in COMMANDS:
        command = cli.get_command(None, name)
        assert command is not None and (command.help or "").strip(), name


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["trian"], 2, "no command 'trian'; did you mean train?"),
        (["xyz"], 2, "no command 'xyz'; commands: init, train, eval, export, check, plan, rehearse, preview, convert"),
        (["schema", "--nope"], 2, "No such option"),
        (["allow"], 2, "error: foveate allow: names no file; write: foveate allow my_adapter.py"),
        (["allow", "gone.py"], 2, "error: gone.py: no such file; check the path"),
        (["allow", "os.system"], 2, "error: os.system: os is part of Python itself"),
    ],
)
def test_a_user_s_error_exits_with_2_and_no_traceback(argv: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]):
    assert main(argv) == code
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and captured.out == ""


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]):
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Foveate recipe"


def test_allow_list_and_revoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "mine.py"
    file.write_text("def f(row):\n    return row\n")
    assert main(["allow", "--list"]) == 0
    assert main(["allow", f"{file}:f"]) == 0
    file.write_text("changed = True\n")
    assert main(["allow", "--list"]) == 0
    assert main(["allow", "--revoke", str(file)]) == 0
    assert main(["allow", "--revoke", str(file)]) == 2
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("nothing is allowed (")
    assert lines[1] == f"allowed {file}" and lines[2].startswith("sha256  ")
    assert lines[3] == f"{lines[2].split()[1]}  {file}  (changed since)"
    assert lines[4] == f"revoked {file}"
    assert captured.err == f"error: {file}: is not on the allow list; see `foveate allow --list`\n"


def test_doctor_reports_this_machine(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("torch")
    assert main(["doctor", "--json"]) == 0
    found = {item["name"]: item for item in json.loads(capsys.readouterr().out)}
    assert {"python", "torch", "transformers", "torchvision", "peft", "cores", "memory", "disk"} <= found.keys()
    assert found["torch"]["state"] == "ok"
    assert main(["doctor"]) == 0
    assert "Ready to train." in capsys.readouterr().out


def test_an_interrupt_exits_with_130():
    # A real SIGINT to a real process, at a moment that is known: while the command line is parsed.
    code = (
        "import os, signal, sys, click; from foveate.cli.main import cli, main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs start with it ignored
        "def stop(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "cli.params.append(click.Option(['--stop'], is_eager=True, expose_value=False, callback=stop))\n"
        "sys.exit(main(['--stop', 'x', 'schema']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr


def test_python_m_foveate():
    done = subprocess.run([sys.executable, "-m", "foveate", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:8]) == (0, "foveate ")


@pytest.mark.parametrize(("command", "output"), [("eval", "taken"), ("eval", "taken/deep"), ("preview", "taken/page.html")])
def test_a_file_where_the_output_belongs(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str], command: str, output: str):
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    Path("r.yaml").write_text("data: {train: [{path: a.jsonl}], eval: [{path: b.jsonl}]}\n")
    assert main([command, "r.yaml", "--output", output]) == 2
    assert "--output: taken: is a file, so no folder can be made there" in capsys.readouterr().err


def test_a_folder_where_the_page_belongs(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text("data: {train: [{path: a.jsonl}]}\n")
    assert main(["preview", "r.yaml", "--output", "."]) == 2
    assert "name the page: preview.html" in capsys.readouterr().err


def test_check_says_how_many_bad_records_it_does_not_list(capsys: pytest.CaptureFixture[str]):
    from foveate.cli.check import _print
    from foveate.events import Quarantined
    from foveate.run.checks.findings import Checked, SplitCheck
    from foveate.types import Origin

    bad = [Quarantined(origin=Origin(file="a.jsonl", row=row), split="train", reason="empty_answer", problem="p") for row in range(12)]
    _print(Checked(splits={"train": SplitCheck(read=12, bad=bad)}), Path("r.yaml"))
    out = capsys.readouterr().out
    assert "a.jsonl row 9: empty_answer: p" in out and "row 10" not in out and "and 2 more" in out
