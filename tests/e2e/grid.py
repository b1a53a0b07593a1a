"""Every format in every kind of source with every kind of medium: rows, and how they are written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.unit.data.build import clip, corner_picture, encoded, sound

Row = dict[str, Any]
SUFFIXES = {"image": "png", "audio": "wav", "video": "mp4"}
KINDS = ("text", "image", "audio", "video")


def file_name(kind: str) -> str:
    return f"one.{SUFFIXES[kind]}"


def make_media(folder: Path) -> None:
    """One file of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "one.png").write_bytes(encoded(corner_picture(40, 32), "PNG"))
    (folder / "one.wav").write_bytes(sound())
    clip(folder / "one.mp4")


def chat(kind: str) -> Row:
    medium = [] if kind == "text" else [{"type": kind, kind: file_name(kind)}]
    content = [*medium, {"type": "text", "text": "What is it?"}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": "red"}]}]}


def llava(kind: str) -> Row:
    tag = "" if kind == "text" else f"<{kind}>\n"
    return with_medium(kind, conversations=[{"from": "human", "value": f"{tag}What is it?"}, {"from": "gpt", "value": "red"}])


def with_medium(kind: str, **fields: Any) -> Row:
    return fields if kind == "text" else {kind: file_name(kind), **fields}


# Format -> the kinds of media that it holds, and its row.
FORMATS: dict[str, tuple[tuple[str, ...], Callable[[str], Row]]] = {
    "messages": (KINDS, chat),
    "sharegpt": (KINDS, llava),
    "alpaca": (KINDS, lambda kind: with_medium(kind, instruction="What is it?", input="Be brief.", output="red")),
    "qa": (KINDS, lambda kind: with_medium(kind, question="What is it?", answer="red")),
    "multiple_choice": (KINDS, lambda kind: with_medium(kind, question="What is it?", choices=["red", "blue"], answer=0)),
    "caption": (("image", "video"), lambda kind: with_medium(kind, caption="a red corner")),
    "ocr": (("image",), lambda kind: with_medium(kind, ground_truth=json.dumps({"gt_parse": {"total": "3"}}))),
    "asr": (("audio",), lambda kind: with_medium(kind, transcription="a tone")),
    "detection": (("image",), lambda kind: with_medium(kind, objects={"bbox": [[2.0, 2.0, 20.0, 16.0]], "category": ["corner"]})),
}
SETTINGS: dict[str, Row] = {"detection": {"boxes_in": "xyxy"}}


def embedded(value: Any, folder: Path) -> Any:
    """The row with every file's name replaced by its bytes, as Parquet and the hub hold media."""
    if isinstance(value, Mapping):
        return {key: embedded(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [embedded(item, folder) for item in value]
    if isinstance(value, str) and value.startswith("one."):
        return {"bytes": (folder / value).read_bytes(), "path": value}
    return value


def lines(rows: Sequence[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def delimited(rows: Sequence[Row], mark: str) -> bytes:
    """A table of texts; what is nested is written as JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=mark, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()})
    return text.getvalue().encode()


def table(rows: Sequence[Row], folder: Path) -> pa.Table:
    return pa.Table.from_pylist([embedded(row, folder) for row in rows])


def write_bytes(name: str, make: Callable[[Sequence[Row]], bytes]) -> Callable[[Sequence[Row], Path], Row]:
    def write(rows: Sequence[Row], folder: Path) -> Row:
        (folder / name).write_bytes(make(rows))
        return {"path": str(folder / name)}

    return write


def zstandard_lines(rows: Sequence[Row]) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(lines(rows))


def write_several(rows: Sequence[Row], folder: Path) -> Row:
    for number, row in enumerate(rows):
        (folder / f"part-{number:02d}.jsonl").write_bytes(lines([row]))
    return {"path": str(folder / f"part-{{00..{len(rows) - 1:02d}}}.jsonl")}


def write_parquet(rows: Sequence[Row], folder: Path) -> Row:
    pq.write_table(table(rows, folder), folder / "rows.parquet")
    return {"path": str(folder / "rows.parquet")}


def write_arrow(rows: Sequence[Row], folder: Path) -> Row:
    made = table(rows, folder)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file, pa.ipc.new_file(file, made.schema) as writer:
        writer.write_table(made)
    return {"path": str(folder / "rows.arrow")}


def write_saved(rows: Sequence[Row], folder: Path) -> Row:
    import datasets

    datasets.Dataset(table(rows, folder)).save_to_disk(str(folder / "saved"))
    return {"path": str(folder / "saved")}


def write_repository(rows: Sequence[Row], folder: Path) -> Row:
    (folder / "repository").mkdir()
    pq.write_table(table(rows, folder), folder / "repository/train-00000-of-00001.parquet")
    return {"hub": str(folder / "repository"), "split": "train"}


def write_stream(rows: Sequence[Row], folder: Path) -> Row:
    return write_repository(rows, folder) | {"streaming": True, "limit": len(rows)}


def write_shard(rows: Sequence[Row], folder: Path, name: str = "rows.tar") -> Row:
    """Media beside their JSON in each sample, as WebDataset has them."""
    with tarfile.open(folder / name, "w") as shard:
        for number, row in enumerate(rows):
            text = json.dumps(row)
            kind = next((kind for kind in SUFFIXES if f'"{file_name(kind)}"' in text), None)
            members = {"json": text.replace("one.", f"{number:04d}.").encode()}
            if kind is not None:
                members[SUFFIXES[kind]] = (folder / file_name(kind)).read_bytes()
            for ending, content in members.items():
                entry = tarfile.TarInfo(f"{number:04d}.{ending}")
                entry.size = len(content)
                shard.addfile(entry, io.BytesIO(content))
    return {"path": str(folder / name)}


def write_energon(rows: Sequence[Row], folder: Path) -> Row:
    (folder / "crude/.nv-meta").mkdir(parents=True)
    for kind in SUFFIXES:
        (folder / "crude" / file_name(kind)).symlink_to(folder / file_name(kind))
    write_shard(rows, folder / "crude", "shard_0.tar")
    meta = folder / "crude/.nv-meta"
    (meta / "dataset.yaml").write_text("__module__: megatron.energon\n__class__: CrudeWebdataset\n")
    (meta / "split.yaml").write_text("exclude: []\nsplit_parts:\n  train: [shard_0.tar]\n  val: []\n  test: []\n")
    return {"path": str(folder / "crude"), "split": "train"}


def write_folder(rows: Sequence[Row], folder: Path) -> Row:
    """Files with metadata.jsonl beside them."""
    make_media(folder / "described")
    (folder / "described/metadata.jsonl").write_bytes(lines(rows))
    return {"path": str(folder / "described")}


def write_beside(rows: Sequence[Row], folder: Path) -> Row:
    """Each file with its text beside it."""
    (folder / "beside").mkdir()
    for number, row in enumerate(rows):
        kind = next(kind for kind in SUFFIXES if kind in row)
        (folder / f"beside/{number}.{SUFFIXES[kind]}").write_bytes((folder / file_name(kind)).read_bytes())
        (folder / f"beside/{number}.txt").write_text(row.get("caption") or row["transcription"])
    return {"path": str(folder / "beside")}


def write_classes(rows: Sequence[Row], folder: Path) -> Row:
    """Each file in the folder of its class."""
    for number, row in enumerate(rows):
        kind = next(kind for kind in SUFFIXES if kind in row)
        place = folder / f"classes/kind_{number}"
        place.mkdir(parents=True)
        (place / file_name(kind)).write_bytes((folder / file_name(kind)).read_bytes())
    return {"path": str(folder / "classes")}


def write_metadata_csv(rows: Sequence[Row], folder: Path) -> Row:
    make_media(folder / "table")
    (folder / "table/metadata.csv").write_bytes(delimited(rows, ","))
    return {"path": str(folder / "table")}


ALL = tuple(FORMATS)
# Source -> (the formats that it can hold, how rows are written).
SOURCES: dict[str, tuple[tuple[str, ...], Callable[[Sequence[Row], Path], Row]]] = {
    "`.jsonl`, `.ndjson`": (ALL, write_bytes("rows.jsonl", lines)),
    "`.json`": (ALL, write_bytes("rows.json", lambda rows: json.dumps(rows).encode())),
    "`.csv`": (ALL, write_bytes("rows.csv", lambda rows: delimited(rows, ","))),
    "`.tsv`": (ALL, write_bytes("rows.tsv", lambda rows: delimited(rows, "\t"))),
    "compressed by gzip": (ALL, write_bytes("rows.jsonl.gz", lambda rows: gzip.compress(lines(rows)))),
    "compressed by Zstandard": (ALL, write_bytes("rows.jsonl.zst", zstandard_lines)),
    "several files": (ALL, write_several),
    "`.parquet`": (ALL, write_parquet),
    "`.arrow`, `.feather`": (ALL, write_arrow),
    "`.tar` shards": (ALL, write_shard),
    "Energon folder": (ALL, write_energon),
    "`save_to_disk` folder": (ALL, write_saved),
    "hub": (ALL, write_repository),
    "hub, `streaming: true`": (ALL, write_stream),
    "folder, `metadata.jsonl`": (ALL, write_folder),
    "folder, `metadata.csv`": (ALL, write_metadata_csv),
    "folder, `.txt` beside": (("caption", "asr"), write_beside),
    "folder of class folders": (("caption",), write_classes),
}


def kinds_of(source: str, form: str) -> tuple[str, ...]:
    """The kinds of media that a format may have in a source."""
    return FORMATS[form][0] if form in SOURCES[source][0] else ()


def markdown() -> str:
    """The table of docs/data.md."""
    marks = {kind: kind[0].upper() for kind in KINDS}
    rows = [f"| source | {' | '.join(f'`{form}`' for form in FORMATS)} |", "|---" * (len(FORMATS) + 1) + "|"]
    for source in SOURCES:
        cells = [" ".join(marks[kind] for kind in kinds_of(source, form)) or "–" for form in FORMATS]
        rows.append(f"| {source} | {' | '.join(cells)} |")
    return "\n".join(rows)
