"""Where the named sets lie: repositories, configurations and splits, those without answers, COCO's own files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foveate.data.adapters.named import NAMED, named_set
from foveate.data.adapters.sets import documents, vqa
from foveate.data.mixture import build_mixture
from foveate.data.sources.coco import open_coco
from foveate.data.sources.open import open_source
from foveate.errors import DataError
from tests.fixtures.sets import MADE, Media, write_parquet
from tests.fixtures.sets.captions import coco_json
from tests.unit.data.build import corner_picture, encoded, section

MEDIA = Media(pictures=[encoded(corner_picture(), "PNG")])


@pytest.mark.parametrize(
    ("name", "config", "split", "place"),
    [
        ("medpix", None, "train[:10%]", ("mmoukouba/MedPix-VQA", None, "train[:10%]")),
        ("common_voice_17", None, None, ("ysdede/commonvoice_17_tr_fixed", None, None)),
        ("common_voice_17", "tr", "train", ("fixie-ai/common_voice_17_0", "tr", "train")),
        ("common_voice_17", "en", "other", ("fixie-ai/common_voice_17_0", "en", "other")),
        ("chartqa", None, "validation[:500]", ("HuggingFaceM4/ChartQA", None, "val[:500]")),
        ("vizwiz", None, "dev", ("lmms-lab/VizWiz-VQA", None, "val")),
        ("vqav2", None, "val", ("lmms-lab/VQAv2", None, "validation")),
        ("docvqa", None, "validation", ("lmms-lab/DocVQA", "DocVQA", "validation")),
        ("docvqa", None, "train[:100]", ("pixparse/docvqa-single-page-questions", None, "train[:100]")),
        ("docvqa", "InfographicVQA", "validation", ("lmms-lab/DocVQA", "InfographicVQA", "validation")),
        ("librispeech", None, "train.100+train.360", ("openslr/librispeech_asr", "clean", "train.100+train.360")),
        ("librispeech", "other", "train.500[:1%]", ("openslr/librispeech_asr", "other", "train.500[:1%]")),
        ("llava_onevision", "sroie", "train", ("lmms-lab/LLaVA-OneVision-Data", "sroie", "train")),
        ("coco_captions", None, "[:100]", ("lmms-lab/COCO-Caption2017", None, "[:100]")),
    ],
)
def test_repository_configuration_and_split(name, config, split, place):
    assert NAMED[name].place(config, split) == place


@pytest.mark.parametrize("name", ["vqav2", "textvqa", "vizwiz", "docvqa", "coco_captions"])
def test_a_split_without_public_answers_is_refused_before_it_is_downloaded(name):
    with pytest.raises(DataError, match="the answers of its split test are not public; records with answers are in") as caught:
        open_source(section(use=name, split="test[:100]"))
    assert (caught.value.reason, caught.value.where) == ("bad_split", NAMED[name].hub)


@pytest.mark.parametrize(
    ("name", "split", "fix"),
    [
        ("vqav2", "train", "validation[:90%]"),
        ("vizwiz", "train", "val[:90%]"),
        ("ai2d", "train", "it is a test set"),
        ("coco_captions", "train", "captions_train2017.json"),
        ("librispeech", "train", "train.100+train.360"),
        ("librispeech", "train.10", "split: train.100"),
        ("scienceqa", "tset", "split: test"),
        ("tulu3", "validation", "split: train"),
    ],
)
def test_a_split_that_is_not_there(name, split, fix):
    with pytest.raises(DataError, match="there is no split ") as caught:
        named_set(name).place(None, split)
    assert caught.value.reason == "bad_split" and fix in caught.value.fix


def test_a_configuration_must_be_named():
    with pytest.raises(DataError, match="many configurations, e.g. sroie") as caught:
        named_set("llava_onevision").place(None, "train")
    assert "name:" in caught.value.fix


def test_a_set_of_local_files_says_how_to_get_them():
    with pytest.raises(DataError, match="read from local files") as caught:
        open_source(section(use="llava_instruct", split="train"))
    assert "hf download" in caught.value.fix and "media_root" in caught.value.fix


def test_an_unknown_set_names_the_nearest_and_all():
    with pytest.raises(DataError, match="did you mean 'cord_v2'") as caught:
        named_set("cordv2")
    assert caught.value.reason == "unknown_set" and all(name in caught.value.fix for name in NAMED)


def test_use_with_a_repository_of_that_schema(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write_parquet(MADE["vqa_rad"], tmp_path / "repo/data/train-00000-of-00001.parquet", MEDIA)
    mixture = build_mixture([section(use="vqa_rad", hub=tmp_path / "repo", split="train")])
    assert mixture.conversation(1).answers == ("The liver",)


def test_cocos_own_captions_file(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    for number in range(2):
        (tmp_path / f"train2017/{number}.jpg").write_bytes(MEDIA.pictures[0])
    path = tmp_path / "annotations/captions_train2017.json"
    path.write_text(json.dumps(coco_json(["0.jpg", "1.jpg", "2.jpg"])))
    mixture = build_mixture([section(use="coco_captions", path=path, media_root=tmp_path / "train2017", split="train[:100%]")])
    first = mixture.conversation(0)
    assert first.answers == ("Caption 0.", "Caption 2.", "Caption 4.") and first.messages[1].text == "Caption 0."
    assert first.media[0].path == tmp_path / "train2017/0.jpg"
    with pytest.raises(DataError) as caught:  # a picture without captions
        mixture.conversation(2)
    assert caught.value.reason == "empty_answer" and "captions_train2017.json row 2" in caught.value.where
    assert len(build_mixture([section(use="coco_captions", path=path, split="train[1:]", limit=1)])) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("3", "no object with"),
        ('{"images": [], "annotations": 3}', "no object with"),
        ('{"images": [{"id": 1}], "annotations": []}', "without 'file_name'"),
        ('{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": []}]}', "without 'caption'"),
        ('{"images": [1], "annotations": []}', "without its fields"),
        ('{"images": [', "not a whole JSON file"),
    ],
)
def test_another_file_than_cocos_captions(tmp_path, text, problem):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        open_coco(tmp_path / "x.json", "coco_captions")
    assert caught.value.reason == "source_unreadable"


def test_the_page_says_it_all():
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")]
    cells = {row[0].strip("`"): row for row in rows if len(row) == 5}
    for name, known in NAMED.items():
        _, place, columns, _, splits = cells[name]
        assert f"`{known.hub}`" in place and all(f"`{other}`" in place for other in known.by_split.values())
        assert [names for role, names in known.columns.items() if role not in "bc" and f"`{names[0]}`" not in columns] == []
        found = set(splits.replace("hidden:", "").replace(";", ",").replace("name: ", "").replace("`", "").split(", "))
        assert {piece.split(":")[-1].strip() for piece in found} >= {*known.splits, *known.hidden} or known.local
        assert all(split in splits.split("hidden:")[-1] for split in known.hidden) and ("hidden:" in splits) == bool(known.hidden)


def test_what_is_put_after_the_question_is_on_the_page():
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")
    for line in (vqa.SHORT, *vqa.UNANSWERABLE.splitlines(), documents.PRODUCT):
        assert f"`{line}`" in page
    for name in ("rdr_items", "coco_captions", "cord_v2", "librispeech"):
        assert f"*{MADE[name].becomes[0].asked}*" in page
