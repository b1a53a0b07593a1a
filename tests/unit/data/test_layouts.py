"""The layouts of other trainers' data, as their own documents have them, read as they mean it or refused with the reason.

Taken from LLaMA-Factory's data/README.md and converter.py, ms-swift's docs/source_en/Customization/Custom-dataset.md, NeMo Automodel's
components/datasets/vlm/datasets.py, and TRL's docs/source/dataset_formats.md.
"""

from __future__ import annotations

import base64
import csv
import json

import pytest

from foveate.data.mixture import build_mixture
from foveate.errors import DataError
from tests.unit.data.build import corner_picture, encoded, jsonl, section, sound
from tests.unit.data.test_adapters import adapt, shape, user

PNG = encoded(corner_picture(), "PNG")


def trained(conversation) -> list[bool]:
    return [message.trained for message in conversation.messages]


def test_llama_factory_alpaca(tmp_path):
    row = {
        "instruction": "Translate.",
        "input": "<image>\nHallo",
        "output": "Hello",
        "system": "Be brief.",
        "history": [["Who?", "I."], ["<image>What?", "A cat."]],
        "images": ["a.png", "b.png"],
    }
    form, conversation = adapt(tmp_path, row)
    assert form == "alpaca (columns instruction, input, output, history, images)"
    assert shape(conversation) == [
        ("system", ["Be brief."]),
        ("user", ["Who?"]),
        ("assistant", ["I."]),
        ("user", ["a.png", "What?"]),
        ("assistant", ["A cat."]),
        ("user", ["Translate.", "b.png", "Hallo"]),
        ("assistant", ["Hello"]),
    ]
    assert trained(conversation) == [False, False, True, False, True, False, True] and conversation.answers == ("Hello",)


@pytest.mark.parametrize(
    ("instruction", "extra", "text"), [("a", "b", "a\nb"), ("a", "", "a"), ("a", None, "a"), ("", "b", "b"), (None, "b", "b")]
)
def test_instruction_and_input_are_joined_by_a_line_break(tmp_path, instruction, extra, text):
    row = {"instruction": instruction, "input": extra, "output": "x"}
    assert adapt(tmp_path, row, format="alpaca")[1].messages[0].text == text


def test_a_prompt_would_hide_the_input(tmp_path):
    row = {"instruction": "a", "input": "b", "output": "x"}
    with pytest.raises(DataError, match="own user turns.*format: qa") as caught:
        adapt(tmp_path, row, prompt="{input}?")
    assert caught.value.reason == "bad_section"
    assert adapt(tmp_path, row, prompt="{input}?", format="qa")[1].messages[0].text == "b?"


def test_llama_factory_messages_with_a_system_column(tmp_path):
    row = {"messages": user("<image>?"), "images": ["a.png"], "system": "S"}
    assert shape(adapt(tmp_path, row)[1])[:2] == [("system", ["S"]), ("user", ["a.png", "?"])]
    own = {"messages": [{"role": "system", "content": "own"}, *user("?")], "system": "S"}
    assert shape(adapt(tmp_path, own)[1])[0] == ("system", ["own"])


def test_swift_query_response_history(tmp_path):
    row = {"query": "<image>q2", "response": "r2", "history": [["<image>q1", "r1"]], "system": "S", "images": ["a.png", {"path": "b.png"}]}
    form, conversation = adapt(tmp_path, row)
    assert form == "qa (columns query, response, history, images)"
    assert shape(conversation) == [
        ("system", ["S"]),
        ("user", ["a.png", "q1"]),
        ("assistant", ["r1"]),
        ("user", ["b.png", "q2"]),
        ("assistant", ["r2"]),
    ]
    for empty in (None, []):
        assert len(adapt(tmp_path, {"query": "q", "response": "r", "history": empty})[1].messages) == 2


@pytest.mark.parametrize("history", [[["q"]], ["q", "r"], [["q", None]], "x", [["q", ["r"]]], '["q"'])
def test_a_history_that_cannot_be(tmp_path, history):
    with pytest.raises(DataError) as caught:
        adapt(tmp_path, {"query": "q", "response": "r", "history": history})
    assert caught.value.reason in ("wrong_type", "bad_json") and caught.value.fix


def test_swift_loss_of_single_messages(tmp_path):
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "a"}]
    for key, value in (("loss", False), ("loss_scale", 0.0), ("train", False), ("weight", 0)):
        _, conversation = adapt(tmp_path, {"messages": [said[0], said[1] | {key: value}, *said]})
        assert trained(conversation) == [False, False, False, True], key
    for key, value in (("loss", 1), ("loss_scale", -0.5), ("loss_scale", "1"), ("weight", True)):
        with pytest.raises(DataError, match=key) as caught:
            adapt(tmp_path, {"messages": [said[0], said[1] | {key: value}]})
        assert caught.value.reason == "wrong_type"


def test_swift_rounds(tmp_path):
    form, conversation = adapt(
        tmp_path, {"system": "S", "conversation": [{"human": "<image>q", "assistant": "r"}] * 2, "images": ["a", "b"]}
    )
    assert form == "sharegpt (column conversation holds human/assistant rounds)"
    assert shape(conversation) == [
        ("system", ["S"]),
        ("user", ["a", "q"]),
        ("assistant", ["r"]),
        ("user", ["b", "q"]),
        ("assistant", ["r"]),
    ]


def test_automodel_conversation(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "?"}]
    row = {"conversation": [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": "x"}]}]}
    form, conversation = adapt(tmp_path, row)
    assert form == "messages (column conversation holds role/content turns)" and shape(conversation)[0] == ("user", ["a.png", "?"])


def test_trl_prompt_and_completion(tmp_path):
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    row = {"prompt": said, "completion": [{"role": "assistant", "content": "d"}], "images": ["a.png"]}
    form, conversation = adapt(tmp_path, row)
    assert form == "qa (columns prompt, completion, images)"
    assert shape(conversation) == [("user", ["a.png", "a"]), ("assistant", ["b"]), ("user", ["c"]), ("assistant", ["d"])]
    assert trained(conversation) == [False, False, False, True]
    assert shape(adapt(tmp_path, row | {"completion": "d"})[1])[-1] == ("assistant", ["d"])
    with pytest.raises(DataError, match="the answer is a list"):  # several answers are no continuation
        adapt(tmp_path, {"question": said, "answers": ["d", "e"]})
    text = adapt(tmp_path, {"prompt": "The sky is", "completion": " blue."})[1]
    assert shape(text) == [("user", ["The sky is"]), ("assistant", [" blue."])]


def test_openai_parts(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    content = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(PNG).decode(), "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "a.png"}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(sound()).decode(), "format": "wav"}},
        {"type": "text", "text": "?"},
    ]
    said = [{"role": "developer", "content": "S"}, {"role": "user", "content": content, "name": "ann"}]
    _, conversation = adapt(tmp_path, {"messages": [*said, {"role": "assistant", "content": "x", "tool_calls": [], "function_call": None}]})
    assert [message.role for message in conversation.messages] == ["system", "user", "assistant"]
    assert conversation.media[0].data == PNG and conversation.media[1].path == tmp_path / "a.png" and conversation.media[2].data == sound()


PREFERENCES = [
    ({"prompt": "?", "chosen": "a", "rejected": "b"}, "chosen, rejected", {"answer": "chosen"}),
    ({"chosen": user("?"), "rejected": user("?")}, "chosen, rejected", {"messages": "chosen"}),
    ({"instruction": "?", "input": "", "chosen": "a", "rejected": "b"}, "chosen, rejected", {"answer": "chosen"}),
    ({"messages": user("?"), "rejected_response": "b"}, "rejected_response", {"messages": "messages"}),
    ({"prompt": "?", "completion": "b", "label": False}, "label", {"answer": "completion"}),
    ({"instruction": "?", "output": "b", "kto_tag": True}, "kto_tag", {"answer": "output"}),
]


@pytest.mark.parametrize(("row", "named", "columns"), PREFERENCES)
def test_preference_data_is_named_and_can_be_mapped(tmp_path, row, named, columns):
    with pytest.raises(DataError, match=f"preference data \\(it has {named}\\)") as caught:
        adapt(tmp_path, row)
    assert caught.value.reason == "preference_data" and "data.jsonl" in caught.value.where and caught.value.fix
    form, conversation = adapt(tmp_path, row, columns=columns)
    assert "; not used: " in form and conversation.messages[-1].role == "assistant"


def test_preference_columns_that_come_late(tmp_path):
    rows = [{"query": "?", "response": "x"}] * 70 + [{"query": "?", "response": "x", "rejected_response": "y"}]
    mixture = build_mixture([section(path=jsonl(tmp_path / "a.jsonl", rows))])
    assert mixture.conversation(69).answers == ("x",)
    with pytest.raises(DataError, match="it has rejected_response") as caught:
        mixture.conversation(70)
    assert caught.value.reason == "preference_data"


def test_turns_as_text_in_a_table(tmp_path):
    turns = json.dumps([{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "x"}])
    quoted = '"' + turns.replace('"', '""') + '"'
    (tmp_path / "a.csv").write_text(f"image,conversations\na.png,{quoted}\n")
    mixture = build_mixture([section(path=tmp_path / "a.csv")])
    assert mixture.formats == ("sharegpt (column conversations holds from/value turns)",)
    assert shape(mixture.conversation(0)) == [("user", ["a.png", "?"]), ("assistant", ["x"])]


def test_24_parquet_of_llama_factory_and_swift(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"messages": user("<image>?"), "images": [{"bytes": PNG, "path": None}], "system": None, "tools": None},
        {"messages": [{"role": "system", "content": "S"}, *user("?")], "images": None, "system": None, "tools": None},
        {"messages": [user("?")[0], user("?")[1] | {"loss": True}], "images": [], "system": "T", "tools": "[]"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert "loss" in pq.read_table(tmp_path / "a.parquet").to_pylist()[0]["messages"][0]
    mixture = build_mixture([section(path=tmp_path / "a.parquet")])
    found = [mixture.conversation(index) for index in range(3)]
    assert [len(conversation.media) for conversation in found] == [1, 0, 0]
    assert [conversation.messages[0].text for conversation in found] == ["?", "S", "T"]


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("messages", {"messages": json.dumps(user("<image>?")), "image": "a.png"}),
        ("alpaca", {"instruction": "a", "input": "b", "output": "x", "history": json.dumps([["c", "d"]])}),
        ("ocr", {"image": "a.png", "ground_truth": json.dumps({"gt_parse": {"a": "1"}})}),
        ("detection", {"image": "a.png", "objects": json.dumps({"bbox": [[1, 2, 3, 4]], "category": ["x"], "area": [12]})}),
    ],
)
def test_a_table_holds_lists_and_objects_as_json_text(tmp_path, form, row):
    (tmp_path / "a.png").write_bytes(PNG)
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        writer.writeheader()
        writer.writerow(row)
    mixture = build_mixture([section(path=tmp_path / "a.csv")])
    assert mixture.formats[0].startswith(f"{form} (") and mixture.conversation(0).answers[0]
