"""`dataset_info.json`: LLaMA-Factory's list of data sets, which Automodel's meta file follows. An entry becomes a source."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foveate.config.suggest import listed, nearest
from foveate.errors import FoveateError
from foveate.migrate.options import placed
from foveate.migrate.report import State

# Tags of an entry -> keys of `tags:`. The values are those that LLaMA-Factory takes when an entry names none.
TAGS = {
    "role_tag": ("role", "from"), "content_tag": ("content", "value"), "user_tag": ("user", "human"), "assistant_tag": ("assistant", "gpt"),
    "system_tag": ("system", "system"), "observation_tag": ("tool", "observation"),
}  # fmt: skip
COLUMNS = {
    "messages": "messages", "prompt": "question", "response": "answer", "system": "system",
    "images": "image", "videos": "video", "audios": "audio", "query": "input", "history": "history",
}  # fmt: skip
_HUBS = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
_PREFERENCES = "is preference data, which supervised fine-tuning can't use"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A data set's source as the recipe has it, and (key, state, why) for each key of the entry."""

    source: dict[str, Any]
    notes: tuple[tuple[str, State, str], ...]


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One entry, half read."""

    name: str
    info: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    notes: list[tuple[str, State, str]] = field(default_factory=list)

    def say(self, key: str, state: State, why: str = "") -> None:
        self.notes.append((key, state, why))


def read_info(path: Path) -> dict[str, dict[str, Any]]:
    """All entries of the file. FoveateError when it is no JSON mapping of mappings."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise FoveateError("no such file", where=str(path), fix="give its path with --dataset-info") from None
    except (UnicodeDecodeError, json.JSONDecodeError, IsADirectoryError, RecursionError) as error:
        raise FoveateError(f"is not JSON: {error}", where=str(path), fix="give a dataset_info.json with --dataset-info") from None
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise FoveateError("is not a mapping of data sets", where=str(path), fix="give a dataset_info.json with --dataset-info")
    return found


def entry_of(infos: dict[str, dict[str, Any]], name: str, path: Path, base: Path, media_dir: Path | None = None) -> Entry:
    """The source that entry `name` of the file at `path` stands for. Relative files and media lie in `media_dir`, else beside the file.

    FoveateError when there is no such entry, or it names nothing that a source can be made of.
    """
    if name not in infos:
        near = nearest(name, infos)
        raise FoveateError(
            f"has no data set {name!r}" + (f"; did you mean {near!r}?" if near else f" (it has {listed(infos)})"),
            where=str(path), fix="correct the name, or give the right file with --dataset-info",
        )  # fmt: skip
    reading = _Reading(name=name, info=infos[name])
    _place(reading, path, base, media_dir)
    _shape(reading)
    _amount(reading)
    done = {key for key, _, _ in reading.notes}
    for key, value in reading.info.items():
        if key not in done and not isinstance(value, dict):
            reading.say(key, "dropped", "unknown to Foveate")
    return Entry(source=reading.source, notes=tuple(reading.notes))


def _place(reading: _Reading, path: Path, base: Path, media_dir: Path | None) -> None:
    """Where the records are."""
    info = reading.info
    if "hf_hub_url" in info:
        reading.source["hub"] = str(info["hf_hub_url"])
        reading.say("hf_hub_url", "mapped")
        for other in ("ms_hub_url", "om_hub_url", "file_name"):
            if other in info:
                reading.say(other, "unneeded", "the same data from the Hugging Face hub is taken")
        if info.get("subset") is not None:
            reading.source["name"] = str(info["subset"])
            reading.say("subset", "mapped")
        reading.source["split"] = str(info.get("split", "train"))
        if "split" in info:
            reading.say("split", "mapped")
    elif "file_name" in info:
        reading.source["path"] = placed(os.path.join(path.parent, str(info["file_name"])), base)
        reading.say("file_name", "mapped")
        for key in ("split", "subset"):
            if key in info:
                reading.say(key, "unneeded", "a file has no splits")
    else:
        place = next((key for key in _HUBS if key in info), None)
        problem = (
            f"data set {reading.name!r} is named by {place}, which can't be read" if place else f"data set {reading.name!r} names no data"
        )
        raise FoveateError(problem, where=str(path), fix="fetch it, and name the file with file_name")
    own = info.get("media_dir")
    folder = Path(os.path.join(path.parent, str(own))) if own is not None else media_dir
    if own is not None:
        reading.say("media_dir", "mapped")
    if folder is not None and "path" in reading.source and folder != path.parent:
        reading.source["media_root"] = placed(str(folder), base)
    if "folder" in info:
        reading.say("folder", "dropped", "a folder inside a hub data set can't be chosen; name its files with `path:`")


def _shape(reading: _Reading) -> None:
    """The format, columns and tags."""
    info, form = reading.info, str(reading.info.get("formatting", "alpaca"))
    reading.source["format"] = {"alpaca": "alpaca", "sharegpt": "sharegpt", "openai": "messages"}.get(form, "auto")
    if "formatting" in info:
        known = form in ("alpaca", "sharegpt", "openai")
        reading.say("formatting", "mapped" if known else "dropped", "" if known else "unknown format; it is detected from the columns")
    columns = info.get("columns") if isinstance(info.get("columns"), dict) else {}
    for key, column in columns.items():
        _column(reading, key, column)
    tags = {}
    given = info.get("tags") if isinstance(info.get("tags"), dict) else {}
    for key, value in given.items():
        if key in TAGS:
            name, usual = TAGS[key]
            if value != usual:
                tags[name] = str(value)
            reading.say(f"tags.{key}", "mapped")
        elif key == "function_tag":
            known = value in ("function_call", "function")
            reading.say(
                f"tags.{key}", "unneeded" if known else "dropped", "calls are read as the assistant's" if known else "no such tag"
            )
        else:
            reading.say(f"tags.{key}", "dropped", "unknown to Foveate")
    if tags.get("role") == "role" and tags.get("content") == "content" and reading.source["format"] == "sharegpt":
        # OpenAI's own names: the format of chat messages, whose usual speakers need no tags.
        reading.source["format"] = "messages"
        tags = {name: value for name, value in tags.items() if value != name and name not in ("role", "content")}
    if tags:
        reading.source["tags"] = tags


def _column(reading: _Reading, key: str, column: Any) -> None:
    role, where = COLUMNS.get(key), f"columns.{key}"
    usual = {"messages": "conversations", "prompt": "instruction", "response": "output"}.get(key, role)
    if role is not None and isinstance(column, str):
        if column not in (usual, role, key, ""):
            reading.source.setdefault("columns", {})[role] = column
        reading.say(where, "mapped")
    elif key == "tools":
        if column not in ("tools", ""):
            reading.source.setdefault("columns", {})["tools"] = column
        reading.say(where, "mapped")
    elif key in ("chosen", "rejected", "kto_tag"):
        reading.say(where, "dropped", _PREFERENCES)
    else:
        reading.say(where, "dropped", "unknown to Foveate")


def _amount(reading: _Reading) -> None:
    """How many of the records."""
    info = reading.info
    if "num_samples" in info:
        count = info["num_samples"]
        whole = isinstance(count, int) and not isinstance(count, bool) and count > 0
        if whole:
            reading.source["count"] = count
        reading.say("num_samples", "mapped" if whole else "dropped", "" if whole else "is not a whole number")
    if "sample_ratio" in info:
        ratio = info["sample_ratio"]
        good = isinstance(ratio, (int, float)) and not isinstance(ratio, bool) and ratio > 0
        if good and ratio != 1:
            reading.source["weight"] = float(ratio)
        reading.say("sample_ratio", "mapped" if good else "dropped", "" if good else "is not a number above 0")
    if "ranking" in info:
        reading.say("ranking", "dropped" if info["ranking"] else "unneeded", _PREFERENCES if info["ranking"] else "")
