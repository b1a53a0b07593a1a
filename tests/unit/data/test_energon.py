"""Megatron-Energon's folders: splits, exclusions, counts, field maps, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foveate.data.adapters import find_adapter
from foveate.data.mixture import build_mixture
from foveate.data.sources.open import open_source
from foveate.errors import DataError
from tests.unit.data.build import corner_picture, encoded, section
from tests.unit.data.shards_build import write_tar

JPEG = encoded(corner_picture(), "JPEG")
CRUDE = "__module__: megatron.energon\n__class__: CrudeWebdataset\nsubflavors: {soft: 1}\n"
SPLIT = """
exclude: [shards/shard_002.tar, "shards/shard_001.tar/{2..3}"]
split_parts:
  train: ["shards/shard_{000..002}.tar"]
  val: [shards/shard_003.tar]
  test: []
"""


def folder(root: Path, dataset: str = CRUDE, split: str = SPLIT, info: dict | None = None, members=None) -> Path:
    """Four shards of two samples each, numbered through."""
    meta = root / ".nv-meta"
    meta.mkdir(parents=True)
    (meta / "dataset.yaml").write_text(dataset)
    (meta / "split.yaml").write_text(split)
    for shard in range(4):
        held = {}
        for key in (2 * shard, 2 * shard + 1):
            for ending, content in (members or {"jpg": JPEG, "txt": f"caption {key}"}).items():
                held[f"{key}.{ending}"] = content
        write_tar(root / f"shards/shard_{shard:03d}.tar", held)
    if info is not None:
        (meta / ".info.json").write_text(json.dumps(info))
    return root


def keys(source) -> list[str]:
    return [source[number]["__key__"] for number in range(len(source))]


def test_splits_braces_and_exclusions(tmp_path):
    path = folder(tmp_path / "a", info={"energon_version": "7", "shard_counts": {f"shards/shard_{n:03d}.tar": 2 for n in range(4)}})
    assert keys(open_source(section(path=path, split="train"))) == ["0", "1"]
    assert keys(open_source(section(path=path, split="validation[1:]"))) == ["7"]
    assert keys(open_source(section(path=path, split="val"))) == ["6", "7"]
    mixture = build_mixture([section(path=path, split="train")])
    assert mixture.formats[0].startswith("caption (")
    assert mixture.conversation(1).messages[1].text == "caption 1"
    assert mixture.origin(1).file == str(path / "shards/shard_000.tar")


def test_the_fingerprint_follows_what_is_read(tmp_path):
    prints = {
        open_source(section(path=folder(tmp_path / str(number), split=split), split="train")).fingerprint()
        for number, split in enumerate((SPLIT, SPLIT.replace("2..3", "2..2"), SPLIT, SPLIT.replace("shard_002.tar,", "shard_000.tar,")))
    }
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("kind", "fields", "members", "form", "expected"),
    [
        ("CaptioningSample", "{image: 'png,jpg', caption: 'json[text][1]'}", {"jpg": JPEG, "json": {"text": ["a", "b"]}}, "caption", "b"),
        (
            "VQASample", "{image: jpg, context: q.txt, answers: 'json[a]'}",
            {"jpg": JPEG, "q.txt": "why?", "json": {"a": ["x", "y", "y"]}}, "qa", "y",
        ),
        (
            "VQASample", "{image: jpg, context: 'json[q]', answers: 'json[a]', answer_weights: 'json[w]'}",
            {"jpg": JPEG, "json": {"q": "why?", "a": ["x", "y", "z"], "w": [0.2, 0.1, 0.7]}}, "qa", "z",
        ),
        (
            "ImageClassificationSample", "{image: jpg, label: cls, label_name: txt}",
            {"jpg": JPEG, "cls": "3", "txt": "heron"}, "caption", "heron",
        ),
    ],
)  # fmt: skip
def test_field_maps(tmp_path, kind, fields, members, form, expected):
    dataset = f"sample_type:\n  __module__: megatron.energon\n  __class__: {kind}\nfield_map: {fields}\n"
    mixture = build_mixture([section(path=folder(tmp_path / "a", dataset, members=members), split="train")])
    assert mixture.formats[0].startswith(f"{form} (")
    conversation = mixture.conversation(0)
    assert conversation.media[0].data == JPEG
    assert conversation.messages[-1].text == expected


def test_multiple_choice_maps_to_its_columns(tmp_path):
    fields = "{image: jpg, context: 'json[q]', choices: 'json[c]', correct_choice_idx: 'json[i]'}"
    dataset = f"sample_type: {{__class__: MultiChoiceVQASample}}\nfield_map: {fields}\n"
    path = folder(tmp_path / "a", dataset, members={"jpg": JPEG, "json": {"q": "which?", "c": ["x", "y"], "i": 1}})
    mixture = build_mixture([section(path=path, split="train")])
    assert mixture.formats[0].startswith("multiple_choice (") and mixture.conversation(0).messages[-1].text == "B"
    row = mixture.sources[0][0]
    assert {key: row[key] for key in ("question", "choices", "answer")} == {"question": "which?", "choices": ["x", "y"], "answer": 1}


def test_part_filter_and_lost_fields(tmp_path):
    path = folder(tmp_path / "a", CRUDE + "part_filter: [TXT]\n")
    assert open_source(section(path=path, split="train"))[0] == {"__key__": "0", "text": "caption 0"}
    dataset = "sample_type: {__class__: CaptioningSample}\nfield_map: {image: png, caption: txt}\n"
    with pytest.raises(DataError, match=r"shard_000.tar/0: no member png for 'image'; the sample has jpg, txt"):
        open_source(section(path=folder(tmp_path / "b", dataset), split="train"))[0]


REFUSED = {
    "counts": ({"info": {"shard_counts": {"shards/shard_001.tar": 3}}}, "train", "says 3 samples of shards/shard_001.tar, and it holds 2"),
    "split": ({}, "trian", "no split 'trian' here; there is train, val, test"),
    "open": ({}, None, "the folder has the splits train, val"),
    "none": ({}, "test", "the split 'test' has no shards"),
    "sample": ({"split": SPLIT.replace("2..3", "2..4")}, "train", "`exclude` names shards/shard_001.tar/4, and there is no such sample"),
    "all": ({"split": "exclude: [a.tar]\nsplit_parts: {train: [a.tar]}"}, "train", "has no shards, all are excluded"),
    "shard": ({"split": "split_parts: {train: [a.tar]}"}, "train", "no such shard"),
    "many": ({"split": "split_parts: {train: ['{0..99}{0..99}{0..99}.tar']}"}, "train", "names more than 100,000 files"),
    "lists": ({"split": "split_parts: {train: a.tar}"}, "train", "train is no list of names"),
    "yaml": ({"split": "a: [1"}, "train", "split.yaml:1"),
    "twice": ({"split": "split_parts: {}\nsplit_parts: {}"}, "train", "split.yaml:2"),
    "loader": ({"dataset": "sample_type: {__class__: OCRSample}\nsample_loader: sample_loader.py:load\n"}, "train", "Python code"),
    "filter": ({"dataset": CRUDE + "part_filter: filter.py:f\n"}, "train", "`part_filter` is Python code"),
    "type": ({"dataset": "sample_type: {__class__: VQASampel}\n"}, "train", "did you mean VQASample?"),
    "interleaved": ({"dataset": "sample_type: {__class__: InterleavedSample}\n"}, "train", "give the source an `adapter:`"),
    "field": ({"dataset": "sample_type: {__class__: VQASample}\nfield_map: {contxt: txt}\n"}, "train", "did you mean 'context'?"),
    "place": ({"dataset": "sample_type: {__class__: VQASample}\nfield_map: {context: 'json[['}\n"}, "train", "`field_map` has 'json[['"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_at_open(tmp_path, case):
    options, split, text = REFUSED[case]
    with pytest.raises(DataError) as caught:
        open_source(section(path=folder(tmp_path / "a", **options), split=split))
    assert text in str(caught.value)
    assert caught.value.fix


def test_missing_files_are_named(tmp_path):
    path = folder(tmp_path / "a")
    (path / ".nv-meta/split.yaml").rename(path / ".nv-meta/split.json")
    (path / ".nv-meta/split.json").write_text('{"split_parts": {"train": ["shards/shard_000.tar"]}}')
    assert keys(open_source(section(path=path))) == ["0", "1"]
    (path / ".nv-meta/split.json").unlink()
    with pytest.raises(DataError, match=r"no split.yaml in it"):
        open_source(section(path=path))
    (path / ".nv-meta/dataset.yaml").unlink()
    with pytest.raises(DataError, match=r"no dataset.yaml in it"):
        open_source(section(path=path))


def adapt(row):
    """A user's adapter: it gets the sample as it is."""
    return [{"role": "user", "content": "q"}, {"role": "assistant", "content": row["text"]}]


def test_an_adapter_gets_crude_samples_whatever_the_folder_says(tmp_path):
    loader = "sample_type: {__class__: OCRSample}\nsample_loader: sample_loader.py:load\npart_filter: sample_loader.py:parts\n"
    chosen = section(path=folder(tmp_path / "a", loader), split="train", adapter="mine.py:adapt")
    source = open_source(chosen)
    _, adapter = find_adapter(chosen, source, function=adapt)
    assert adapter(source[0]).messages[1].text == "caption 0"
