"""Inputs that stop a run before its first step: the source, the recipe, the template, the surroundings."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.catalogue.case import Stop

TRAIN = "data.train.0.path="


def written(name: str, content: bytes | str, *overrides: str) -> Callable[[Path], Sequence[str]]:
    """A file of this content is the training data."""

    def make(folder: Path) -> Sequence[str]:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return (f"{TRAIN}{name}", *overrides)

    return make


def settings(*overrides: str) -> Callable[[Path], Sequence[str]]:
    """A good set, with these settings."""
    return lambda _folder: overrides


def recipe_line(text: str) -> Callable[[Path], Sequence[str]]:
    """A line added to the recipe file itself; JSON is YAML, so the file is rewritten in block style first."""

    def make(folder: Path) -> Sequence[str]:
        recipe = json.loads((folder / "recipe.yaml").read_text())
        lines = [f"{key}: {json.dumps(value)}" for key, value in recipe.items()]
        (folder / "recipe.yaml").write_text("\n".join([*lines, text]) + "\n")
        return ()

    return make


def a_folder(folder: Path) -> Sequence[str]:
    (folder / "empty").mkdir()
    return (f"{TRAIN}empty",)


def file_in_the_way(folder: Path) -> Sequence[str]:
    (folder / "runs").write_text("a file")
    return ("train.output=runs/first",)


def all_bad(folder: Path) -> Sequence[str]:
    rows = [{"image": f"images/lost-{i}.png", "question": "?", "answer": "red"} for i in range(3)]
    (folder / "lost.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return (f"{TRAIN}lost.jsonl", "data.max_bad=100%")


QA = '{"question": "?", "answer": "red"}\n'
LOOP = "{% for a in range(100000) %}{% for b in range(100000) %}{{ a * b }}{% endfor %}{% endfor %}"
BOMB = "bomb: &a0 [x, x, x]\n" + "".join(f"b{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))

STOPS = [
    Stop(title="data file not found", says=["trian.jsonl", "did you mean train.jsonl?"], make=settings(f"{TRAIN}trian.jsonl")),
    Stop(title="data file of zero bytes", says=["zero.jsonl", "0 bytes"], make=written("zero.jsonl", b"")),
    Stop(title="data file of blank lines", says=["blank.jsonl", "no records"], make=written("blank.jsonl", "\n\n  \n")),
    Stop(title="data file of an unknown type", says=["notes.docx", ".jsonl"], make=written("notes.docx", b"PK\3\4")),
    Stop(title="UTF-16 file", says=["utf16.jsonl", "UTF-16", "UTF-8"], make=written("utf16.jsonl", QA.encode("utf-16"))),
    Stop(title="folder without data", says=["empty"], make=a_folder),
    Stop(title="CSV of a header alone", says=["head.csv", "no records"], make=written("head.csv", "question,answer\n")),
    Stop(
        title="CSV that names a column twice",
        says=["twice.csv", "'answer' twice"],
        make=written("twice.csv", "question,answer,answer\na,b,c\n"),
    ),
    Stop(title="damaged Parquet file", says=["cut.parquet", "Parquet"], make=written("cut.parquet", b"PAR1" + bytes(40))),
    Stop(title="damaged gzip file", says=["cut.jsonl.gz"], make=written("cut.jsonl.gz", gzip.compress(QA.encode() * 500)[:-20])),
    Stop(title="damaged tar shard", says=["cut.tar"], make=written("cut.tar", b"image.jpg" + bytes(200))),
    Stop(
        title="columns that fit no format", says=["colour, size", "columns:"], make=written("odd.jsonl", '{"colour": "red", "size": 3}\n')
    ),
    Stop(
        title="columns that fit two formats",
        says=["could be", "format:"],
        make=written("two.jsonl", json.dumps({"question": "?", "answer": "a", "messages": [{"role": "user", "content": "?"}]}) + "\n"),
    ),
    Stop(
        title="column mapped to one that is not there",
        says=["'anwser'", "did you mean 'answer'"],
        make=settings("data.train.0.columns.answer=anwser"),
    ),
    Stop(
        title="prompt with an unknown column", says=["{sise}"], make=settings("data.train.0.prompt=About {sise}?", "data.train.0.format=qa")
    ),
    Stop(title="split that can't be read", says=["train[1:2:3]", "split"], make=settings("data.train.0.split=train[1:2:3]")),
    Stop(title="slice that leaves nothing", says=["no records"], make=settings("data.train.0.split=train[900:]")),
    Stop(
        title="more bad records than allowed",
        says=["image_missing", "max_bad"],
        make=written("lost.jsonl", json.dumps({"image": "lost.png", "question": "?", "answer": "red"}) + "\n" + QA),
    ),
    Stop(title="no usable record at all", says=["no training record can be used"], make=all_bad),
    Stop(title="unknown named set", says=["medpics", "did you mean"], make=settings("data.train=[{use: medpics}]")),
    Stop(
        title="hub set, offline and not cached",
        says=["nobody/nothing", "offline"],
        make=settings("data.train=[{hub: nobody/nothing, split: train}]", "model.offline=true"),
    ),
    Stop(title="model that is nowhere", says=["model.id", "nowhere"], make=settings("model.id=./nowhere")),
    Stop(title="unknown key", says=["recipe.yaml:", "optimm", "did you mean"], make=recipe_line("optimm: {lr: 1}")),
    Stop(title="key written twice", says=["recipe.yaml:", "optim"], make=recipe_line("optim: {lr: 1}")),
    Stop(title="alias bomb", says=["recipe.yaml:"], make=recipe_line(BOMB)),
    Stop(title="text where a number belongs", says=["batch.size"], make=settings("batch.size=many")),
    Stop(title="rate of nan", says=["optim.lr"], make=settings("optim.lr=nan")),
    Stop(title="unset variable", says=["FOVEATE_NO_SUCH"], make=settings("optim.lr=${FOVEATE_NO_SUCH}")),
    Stop(title="LoRA target that matches nothing", says=["q_porj", "q_proj"], make=settings("tuning.targets=[q_porj]")),
    Stop(title="metric that no data can give", says=["train.best", "data.eval"], make=settings("train.best=wer")),
    Stop(
        title="weight and count together",
        says=["data.train.0.count", "weight"],
        make=settings("data.train.0.weight=2", "data.train.0.count=5"),
    ),
    Stop(title="template without end", says=["template"], make=settings(f"model.chat_template={LOOP}")),
    Stop(title="template that fails", says=["template"], make=settings("model.chat_template={{ messages[0].nothing.at_all }}")),
    Stop(title="output where a file stands", says=["runs"], make=file_in_the_way),
    Stop(title="function of the standard library as adapter", says=["os"], make=settings("data.train.0.adapter=os:system")),
    Stop(
        title="adapter that was not allowed",
        says=["foveate allow"],
        make=lambda folder: ((folder / "mine.py").write_text("def adapt(row): ...\n"), ("data.train.0.adapter=mine.py:adapt",))[1],
    ),
]
