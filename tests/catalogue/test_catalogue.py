"""Every entry of the catalogue, through the real command: its message, its code, its ledger line, no traceback, nothing unaccounted for."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from foveate.cli.main import main
from tests import families
from tests.catalogue import formats, images, records, sound_and_video
from tests.catalogue.case import Accepted, BadRecord, Row, Stop
from tests.catalogue.stops import STOPS
from tests.e2e.conftest import foveate, model_dir, picture, work, write_recipe, write_set  # noqa: F401
from tests.unit.data.build import clip, sound

BAD_SEEN = [*images.BAD, *records.BAD, *formats.BAD, *sound_and_video.BAD_CLIPS]
ODD_SEEN = [*images.ODD, *records.ODD, *formats.ODD, *sound_and_video.ODD_CLIPS]
GOOD = {
    "qa": {"image": "images/good-0.png", "question": "What is it?", "answer": "red"},
    "messages": {
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "images/good-0.png"}, {"type": "text", "text": "What?"}]},
            {"role": "assistant", "content": "red"},
        ]
    },
    "sharegpt": {
        "image": "images/good-0.png",
        "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}],
    },
    "video": {"video": "clips/good.mp4", "question": "What moves?", "answer": "yes"},
    "audio": {"audio": "sounds/good.wav", "question": "What is said?", "answer": "yes"},
    **formats.GOOD,
}


@dataclass(frozen=True)
class Outcome:
    """What a run over a whole part of the catalogue left behind."""

    code: int
    text: str
    ledger: dict[tuple[str, int], dict]  # (source, row) -> line
    checked: dict[tuple[str, int], str]  # the same records' reasons by `foveate check`
    facts: dict
    places: dict[str, tuple[str, int]]  # title -> (source, row)


def key(origin: dict) -> tuple[str, int]:
    return Path(origin["file"]).stem, origin["row"]


def write_lines(folder: Path, entries: list[BadRecord | Accepted]) -> dict[str, tuple[str, int]]:
    """One file for each source, a good record first and last; says where each entry stands."""
    rows: dict[str, list[Row]] = {}
    places = {}
    for entry in entries:
        lines = rows.setdefault(entry.source, [GOOD[entry.source]])
        places[entry.title] = (entry.source, len(lines))
        lines.append(entry.make(folder))
    for source, lines in rows.items():
        lines.append(GOOD[source])
        content = b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
        (folder / f"{source}.jsonl").write_bytes(content)
    return places


def outcome(folder: Path, base: Path, entries: list[BadRecord | Accepted], capsys) -> Outcome:
    """Train on all of them with every bad one tolerated, and check them."""
    for name in ("images", "clips", "sounds"):
        (folder / name).mkdir(exist_ok=True)
    picture("red").save(folder / "images/good-0.png")
    (folder / "sounds/good.wav").write_bytes(sound())
    clip(folder / "clips/good.mp4")
    places = write_lines(folder, entries)
    names = dict.fromkeys(entry.source for entry in entries)
    sources = [{"path": f"{name}.jsonl"} | formats.SETTINGS.get(name, {}) for name in names]
    data = {"train": sources, "workers": 0, "max_bad": len(entries)}
    recipe = write_recipe(
        folder, base, data=data, batch={"size": 8, "max_tokens": 1024}, train={"epochs": 1, "steps": None, "output": "run"}
    )
    before = os.getcwd()
    os.chdir(folder)
    try:
        code = main(["train", str(recipe)])
        printed = capsys.readouterr()
        main(["check", str(recipe), "--json", "--decode"])
        findings = json.loads(capsys.readouterr().out)
    finally:
        os.chdir(before)
    ledger = [json.loads(line) for line in (folder / "run/quarantine.jsonl").read_text().splitlines()]
    return Outcome(
        code=code,
        text=printed.out + printed.err,
        ledger={key(line["origin"]): line for line in ledger},
        checked={key(bad["origin"]): bad["reason"] for bad in findings["splits"]["train"]["bad"]},
        facts=json.loads((folder / "run/run.json").read_text()),
        places=places,
    )


class Once:
    """The outcome of each part, worked out when it is first asked for."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory, self._found = factory, {}

    def __call__(self, part: str, capsys) -> Outcome:
        if part not in self._found:
            family, entries = PARTS[part]
            base = families.save(family, self._factory.mktemp("model") / family)
            self._found[part] = outcome(self._factory.mktemp(part), base, entries, capsys)
        return self._found[part]


PARTS: dict[str, tuple[str, list[BadRecord | Accepted]]] = {
    "seen": ("smolvlm", [*BAD_SEEN, *ODD_SEEN]),
    "heard": ("qwen2_audio", [*sound_and_video.BAD_SOUNDS, *sound_and_video.ODD_SOUNDS]),
}
ENTRIES = [pytest.param(part, entry, id=entry.title) for part, (_, entries) in PARTS.items() for entry in entries]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> Once:
    return Once(tmp_path_factory)


@pytest.mark.xdist_group("catalogue")
@pytest.mark.parametrize(("part", "entry"), ENTRIES)
def test_a_record(part, entry, outcomes, capsys):
    found = outcomes(part, capsys)
    place = found.places[entry.title]
    if isinstance(entry, Accepted):
        assert place not in found.ledger and place not in found.checked
        return
    line = found.ledger[place]
    assert line["reason"] == entry.reason, line
    assert entry.says in line["problem"], line
    assert line["fix"] and line["split"] == "train"
    assert found.checked[place] == entry.reason  # the same verdict in `check` as in training


@pytest.mark.xdist_group("catalogue")
@pytest.mark.parametrize("part", PARTS)
def test_used_and_quarantined_are_what_was_read(part, outcomes, capsys):
    found = outcomes(part, capsys)
    entries = PARTS[part][1]
    bad = sum(isinstance(entry, BadRecord) for entry in entries)
    good = len(entries) - bad + 2 * len({entry.source for entry in entries})
    assert found.code == 0 and "Traceback" not in found.text, found.text
    assert (found.facts["read"], found.facts["used"], found.facts["quarantined"]) == (bad + good, good, bad)
    assert len(found.ledger) == len(found.checked) == bad
    assert f"{bad + good:,} records read = {good:,} used + {bad:,} quarantined" in found.text


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry.title) for entry in STOPS])
def test_a_stop(work, model_dir, foveate, entry: Stop):  # noqa: F811
    write_set(work, 4)
    recipe = write_recipe(work, model_dir)
    result = foveate("train", recipe, *entry.make(work))
    assert result.code == 2, result.text
    assert "Traceback" not in result.text
    assert [text for text in entry.says if text not in result.err] == [], result.err
    assert not (work / "run/model").exists()


def test_the_catalogue_is_large_and_names_each_entry_once():
    titles = [entry.title for _, entries in PARTS.values() for entry in entries] + [entry.title for entry in STOPS]
    assert len(titles) == len(set(titles)) >= 100
