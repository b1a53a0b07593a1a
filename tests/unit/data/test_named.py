"""The named sets, on files of their published schemas: what each record becomes, from every kind of source."""

from __future__ import annotations

import base64
import json
import pickle

import pytest

from foveate.data.adapters.named import NAMED
from foveate.data.media import load_audio, open_image
from foveate.data.mixture import build_mixture
from foveate.errors import DataError
from foveate.types import Text
from tests.fixtures import schemas
from tests.fixtures.sets import MADE, Made, Media, chat, choice, vqa, write_parquet
from tests.fixtures.sets.base import Turn
from tests.unit.data.build import RULES, corner_picture, encoded, jsonl, section, sound

MEDIA = Media(pictures=[encoded(corner_picture(), "JPEG"), encoded(corner_picture(20, 10), "PNG")], sounds=[sound("WAV")])
CHOICE = ("scienceqa", "ai2d", "pubmed_vqa")


def built(name: str, path, **fields):
    return build_mixture([section(use=name, path=path, **fields)])


def check(conversation, turn: Turn, made: Made) -> None:
    """The record's last question, answer, accepted answers and media; the media open."""
    messages = conversation.messages
    assert len(messages) == turn.turns
    assert (messages[-2].role, messages[-1].role) == ("user", "assistant")
    assert (messages[-2].text, messages[-1].text) == (turn.asked, turn.answer)
    assert conversation.answers == (turn.accepted or (turn.answer,))
    assert len(conversation.media) == turn.media
    for medium in conversation.media:
        assert load_audio(medium, 16_000, rules=RULES).size if made.kind == "audio" else open_image(medium, rules=RULES).size


def test_every_set_has_a_fixture():
    assert sorted(MADE) == sorted(NAMED)


@pytest.mark.parametrize("name", MADE)
def test_what_the_records_become(tmp_path, name):
    made = MADE[name]
    mixture = built(name, write_parquet(made, tmp_path / "set.parquet", MEDIA))
    mixture = pickle.loads(pickle.dumps(mixture))  # as it goes to the processes that prepare batches
    assert len(mixture) == len(made.becomes)
    assert mixture.formats[0].startswith(f"{name} (columns ")
    for index, turn in enumerate(made.becomes):
        conversation = mixture.conversation(index)
        check(conversation, turn, made)
        assert conversation.origin.row == index
        first = conversation.messages[0]
        if turn.media and first.role == "user" and turn.turns == 2 and name != "llava_instruct":  # whose tag stands after the question
            assert not isinstance(first.parts[0], Text)  # media come first


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("form", ["jsonl", "json", "saved", "folder"])
def test_local_copies_of_every_kind(tmp_path, name, form):
    made = MADE[name]
    rows = made.rows(MEDIA)
    if form in ("jsonl", "json"):
        plain = [{key: _plain(value) for key, value in row.items()} for row in rows]
        path = tmp_path / f"set.{form}"
        jsonl(path, plain) if form == "jsonl" else path.write_text(json.dumps(plain, indent=1), encoding="utf-8")
    elif form == "saved":
        path = _saved(made, rows, tmp_path / "saved")
    else:
        path = tmp_path / "data"
        write_parquet(made, path / "train-00000-of-00002.parquet", MEDIA)
        write_parquet(made, path / "train-00001-of-00002.parquet", MEDIA)
    mixture = built(name, path, split="train")
    for index, turn in enumerate(made.becomes):
        check(mixture.conversation(index), turn, made)


@pytest.mark.parametrize("name", MADE)
def test_a_missing_value_is_refused_with_the_columns_name(tmp_path, name):
    made = MADE[name]
    for column in made.required:
        rows = made.rows(MEDIA)
        rows[0][column] = None
        with pytest.raises(DataError, match=column) as caught:
            built(name, write_parquet(made, tmp_path / f"{column.split()[-1]}.parquet", MEDIA, rows)).conversation(0)
        # Four columns hold the choices of one question: an empty one may stand for a question with fewer.
        assert caught.value.reason == "missing_field" and caught.value.fix


@pytest.mark.parametrize("name", MADE)
def test_another_schema_is_refused_at_once(tmp_path, name):
    jsonl(tmp_path / "x.jsonl", [{"id": 1, "note": "x"}])
    with pytest.raises(DataError, match="this is not the schema of " + NAMED[name].hub) as caught:
        built(name, tmp_path / "x.jsonl")
    assert caught.value.reason == "missing_field" and "columns are id, note" in caught.value.problem and "format:" in caught.value.fix


@pytest.mark.parametrize("name", MADE)
def test_the_recipes_prompt(tmp_path, name):
    made = MADE[name]
    path = write_parquet(made, tmp_path / "set.parquet", MEDIA)
    if "messages" in NAMED[name].columns:
        with pytest.raises(DataError, match="own user turns"):
            built(name, path, prompt="Say.")
        return
    asked = built(name, path, prompt="Say.").conversation(0).messages[0].text
    if name in CHOICE:  # its last line
        assert asked.endswith("\nSay.") and "given choices" not in asked
    else:
        assert asked == "Say."


def test_a_prompt_with_the_column_asks_the_bare_question(tmp_path):
    path = write_parquet(MADE["chartqa"], tmp_path / "set.parquet", MEDIA)
    assert built("chartqa", path, prompt="{query}").conversation(0).messages[0].text == "Is the value of Favorable 38 in 2015?"


@pytest.mark.parametrize(
    ("name", "change", "reason", "problem"),
    [
        ("vqav2", {"answers": []}, None, ""),  # their own count is left
        ("textvqa", {"answers": []}, "empty_answer", "the list of answers is empty"),
        ("textvqa", {"answers": [""] * 10}, "empty_answer", "the answer in message 1 is empty"),  # as in its test split
        ("vizwiz", {"answers": None}, "missing_field", "(the answers of test are not public)"),
        ("vizwiz", {"answers": [None, "a hand"]}, None, ""),
        ("docvqa", {"question": " "}, "empty_question", "the question is empty"),
        ("chartqa", {"label": [None]}, "empty_answer", "the list of answers is empty"),
        ("scienceqa", {"answer": 4}, "bad_choice", "4"),
        ("ai2d", {"answer": "b"}, "bad_choice", "'b'"),
        ("pubmed_vqa", {"answer label": "E"}, "bad_choice", "'E'"),
        ("pubmed_vqa", {"choice b": "B: "}, "bad_choice", "choice"),
        ("rdr_items", {"text": "  "}, "empty_answer", "message 1 is empty"),
        ("coco_captions", {"answer": []}, "empty_answer", "message 1 is empty"),
        ("product_catalogue", {"ground_truth_category": " "}, "empty_answer", "ground_truth_category"),
        ("cord_v2", {"ground_truth": "{"}, "bad_json", "ground_truth is not JSON"),
        ("unimm_chat", {"conversation": "[{"}, "bad_json", "conversation is not JSON"),
        ("unimm_chat", {"conversation": "{}"}, "wrong_type", "conversation is empty or no list"),
        ("unimm_chat", {"conversation": '[{"from": "narrator", "value": "x"}]'}, "unknown_role", "narrator"),
        ("llava_onevision", {"image": None}, "placeholder_mismatch", "<image>"),
        ("llava_onevision", {"conversations": []}, "wrong_type", "conversations is empty"),
        ("llava_onevision", {"conversations": [{"from": "human", "value": None}]}, "no_trained_turn", ""),
        ("tulu3", {"messages": [{"role": "user", "content": "Hi"}]}, "no_trained_turn", ""),
        ("tulu3", {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}]}, "empty_answer", ""),
        ("librispeech", {"text": ""}, "empty_answer", ""),
    ],
)
def test_odd_values(tmp_path, name, change, reason, problem):
    made = MADE[name]
    rows = made.rows(MEDIA)
    rows[0] |= change
    mixture = built(name, write_parquet(made, tmp_path / "set.parquet", MEDIA, rows))
    if reason is None:
        assert mixture.conversation(0).answers
        return
    with pytest.raises(DataError) as caught:
        mixture.conversation(0)
    assert (caught.value.reason, problem in caught.value.problem) == (reason, True), caught.value
    assert "set.parquet row 0" in caught.value.where


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("vqav2", {"question": ["Where?"]}, "wrong_type"),
        ("docvqa", {"image": 7}, "wrong_type"),
        ("product_catalogue", {"ground_truth_is_secondhand": "no"}, "wrong_type"),
        ("product_catalogue", {"potential_product_categories": "Shoes"}, "wrong_type"),
        ("product_catalogue", {"product_title": 7.5}, None),
        ("unimm_chat", {"conversation": [{"from": "human", "value": "x"}]}, "wrong_type"),
        ("llava_onevision", {"conversations": ["Hi"]}, "missing_field"),
    ],
)
def test_values_of_another_type(tmp_path, name, change, reason):
    rows = [{key: _plain(value) for key, value in (MADE[name].rows(MEDIA)[0] | change).items()}]
    mixture = built(name, jsonl(tmp_path / "x.jsonl", rows))
    if reason is None:
        assert "Title: 7.5" in mixture.conversation(0).messages[0].text
        return
    with pytest.raises(DataError) as caught:
        mixture.conversation(0)
    assert caught.value.reason == reason


def test_the_choices_of_one_letter_stay(tmp_path):
    rows = MADE["pubmed_vqa"].rows(MEDIA)
    rows[0] |= {"choice a": "B: is a letter", "choice c": "Ratio: 3:1"}
    text = built("pubmed_vqa", write_parquet(MADE["pubmed_vqa"], tmp_path / "p.parquet", MEDIA, rows)).conversation(0).messages[0].text
    assert "\nA. B: is a letter\nB. Focal uptake pattern\nC. Ratio: 3:1\n" in text


def test_local_files_of_llava_with_its_pictures(tmp_path):
    (tmp_path / "train2017").mkdir()
    (tmp_path / "train2017/000000033471.jpg").write_bytes(MEDIA.pictures[0])
    path = tmp_path / "llava_v1_5_mix665k.json"
    path.write_text(json.dumps(chat.llava_json("000000033471.jpg")))
    mixture = built("llava_instruct", path, media_root=tmp_path / "train2017")
    check(mixture.conversation(0), Turn(asked="Why?", answer="Ads.", turns=4), MADE["llava_instruct"])
    check(mixture.conversation(1), Turn(asked="Hi", answer="Hello!", media=0), MADE["llava_instruct"])


def test_local_files_of_slake_and_pmc(tmp_path):
    (tmp_path / "imgs/xmlab0").mkdir(parents=True)
    (tmp_path / "imgs/xmlab0/source.jpg").write_bytes(MEDIA.pictures[0])
    (tmp_path / "train.json").write_text(json.dumps(vqa.slake_json("xmlab0/source.jpg")))
    (tmp_path / "train.csv").write_text(choice.pmc_csv("xmlab0/source.jpg"))
    slake = built("slake", tmp_path / "train.json", media_root=tmp_path / "imgs")
    check(slake.conversation(0), Turn(asked="What modality is used to take this image?", answer="MRI"), MADE["slake"])
    pmc = built("pubmed_vqa", tmp_path / "train.csv", media_root=tmp_path / "imgs")
    check(pmc.conversation(0), Turn(asked=choice.PMC_ASKED, answer="B"), MADE["pubmed_vqa"])


def test_docvqa_of_the_repository_with_its_training_split(tmp_path):
    mixture = built("docvqa", write_parquet(vqa.DOCVQA_TRAIN, tmp_path / "t.parquet", MEDIA))
    check(mixture.conversation(0), vqa.DOCVQA_TRAIN.becomes[0], vqa.DOCVQA_TRAIN)


def test_common_voice_in_mozillas_schema(tmp_path):
    clips = [sound("MP3", rate_hz=32_000), sound("WAV")]
    mixture = built("common_voice_17", schemas.common_voice(tmp_path / "en.parquet", clips))
    conversation = mixture.conversation(1)
    assert conversation.messages[1].text == "Sentence number 1."
    assert abs(len(load_audio(mixture.conversation(0).media[0], 16_000, rules=RULES)) - 8_000) < 2_000


def test_several_parses_train_on_the_first_and_accept_all(tmp_path):
    rows = MADE["cord_v2"].rows(MEDIA)
    rows[0]["ground_truth"] = json.dumps({"gt_parses": [{"answer": "a"}, {"answer": "b"}]})
    conversation = built("cord_v2", write_parquet(MADE["cord_v2"], tmp_path / "c.parquet", MEDIA, rows)).conversation(0)
    assert conversation.messages[1].text == '{"answer": "a"}' and len(conversation.answers) == 2


def test_a_receipt_keeps_its_digits(tmp_path):
    rows = [MADE["cord_v2"].rows(MEDIA)[0] | {"ground_truth": '{"gt_parse": {"price": 12.50}}'}]
    conversation = built("cord_v2", write_parquet(MADE["cord_v2"], tmp_path / "c.parquet", MEDIA, rows)).conversation(0)
    assert conversation.messages[1].text == '{"price": 12.50}'


@pytest.mark.parametrize("truth", ["[]", '{"meta": 1}', '{"gt_parse": null}'])
def test_a_receipt_without_a_parse(tmp_path, truth):
    rows = [MADE["cord_v2"].rows(MEDIA)[0] | {"ground_truth": truth}]
    with pytest.raises(DataError, match="no gt_parse"):
        built("cord_v2", write_parquet(MADE["cord_v2"], tmp_path / "c.parquet", MEDIA, rows)).conversation(0)


def _plain(value):
    """The value as JSON can hold it: media bytes in base64."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _saved(made: Made, rows: list, folder):
    """A folder that `save_to_disk` writes."""
    import pyarrow as pa
    from datasets import Dataset, DatasetDict
    from datasets.table import InMemoryTable

    table = pa.Table.from_pylist(rows, schema=made.features.arrow_schema)
    DatasetDict({"train": Dataset(InMemoryTable(table))}).save_to_disk(folder)
    return folder
