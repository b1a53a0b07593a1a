"""Rows of every format to conversations; what is detected, and what is refused."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path

import pytest
from PIL import Image as Pillow

from foveate.data.adapters import find_adapter
from foveate.data.sources.open import open_source
from foveate.errors import DataError
from foveate.types import Audio, Image, Text, Video
from tests.unit.data.build import corner_picture, encoded, jsonl, section

PNG = encoded(corner_picture(), "PNG")


def adapt(tmp_path, row: dict, **fields):
    """The format's description and the conversation of one record in a JSONL file."""
    spec = section(path=jsonl(tmp_path / "data.jsonl", [row]), **fields)
    source = open_source(spec)
    form, adapter = find_adapter(spec, source)
    return form, pickle.loads(pickle.dumps(adapter))(source[0])


def shape(conversation) -> list:
    """Roles with texts as they are and media as their file's name."""
    return [(m.role, [p.text if isinstance(p, Text) else p.path.name for p in m.parts]) for m in conversation.messages]


def user(content) -> list[dict]:
    return [{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}]


def test_messages_with_text_parts_and_nulls(tmp_path):
    row = {
        "messages": [
            {"role": "system", "content": "Be brief.", "name": None},
            {
                "role": "user",
                "content": [{"type": "image", "image": "a.png", "text": None}, {"type": "text", "text": "Which?", "image": None}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "Red."}], "train": False},
            {"role": "user", "content": "Sure?"},
            {"role": "assistant", "content": "Yes.", "weight": 1},
        ]
    }
    form, conversation = adapt(tmp_path, row)
    assert form == "messages (column messages holds role/content turns)"
    assert shape(conversation) == [
        ("system", ["Be brief."]), ("user", ["a.png", "Which?"]), ("assistant", ["Red."]), ("user", ["Sure?"]), ("assistant", ["Yes."]),
    ]  # fmt: skip
    assert [m.trained for m in conversation.messages] == [False, False, False, False, True]
    assert conversation.media[0].path == tmp_path / "a.png"


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}}, Image),
        ({"type": "image_url", "image_url": "data:image/png;base64," + base64.b64encode(PNG).decode()}, Image),
        ({"type": "input_image", "image_url": "file:///x/a%20b.png"}, Image),
        ({"type": "image", "path": "/x/a.png", "max_pixels": 100}, Image),
        ({"type": "image", "base64": base64.b64encode(PNG).decode()}, Image),
        ({"image": "a.png"}, Image),
        ({"type": "input_audio", "input_audio": {"data": base64.b64encode(b"RIFF1234WAVE").decode(), "format": "wav"}}, Audio),
        ({"type": "audio", "audio_url": "a.wav"}, Audio),
        ({"type": "video", "video": "a.mp4", "num_frames": 4}, Video),
    ],
)
def test_every_spelling_of_a_medium(tmp_path, part, kind):
    _, conversation = adapt(tmp_path, {"messages": user([part, {"type": "text", "text": "?"}])})
    (medium,) = conversation.media
    assert type(medium) is kind and (medium.path is None) != (medium.data is None)
    if "max_pixels" in part:
        assert medium.max_pixels == 100 and medium.path == Path("/x/a.png")
    if "num_frames" in part:
        assert medium.num_frames == 4
    if part.get("image_url") == "file:///x/a%20b.png":
        assert medium.path == Path("/x/a b.png")


def test_a_media_column_fills_tags_parts_or_the_front(tmp_path):
    images = ["a.png", "b.png"]
    _, tagged = adapt(tmp_path, {"messages": user("<image>\nfirst, then <image>?"), "images": images})
    assert shape(tagged)[0] == ("user", ["a.png", "first, then ", "b.png", "?"])
    _, typed = adapt(tmp_path, {"messages": user([{"type": "text", "text": "x"}, {"type": "image"}, {"type": "image"}]), "images": images})
    assert shape(typed)[0] == ("user", ["x", "a.png", "b.png"])
    _, front = adapt(tmp_path, {"messages": user("both?"), "images": images})
    assert shape(front)[0] == ("user", ["a.png", "b.png", "both?"])


def test_a_tag_without_a_media_column_is_text(tmp_path):
    _, conversation = adapt(tmp_path, {"messages": user("What does <image> mean in HTML?")})
    assert shape(conversation)[0] == ("user", ["What does <image> mean in HTML?"])
    _, typed = adapt(tmp_path, {"messages": user([{"type": "text", "text": "<image>"}, {"type": "image", "image": "a.png"}])})
    assert shape(typed)[0] == ("user", ["<image>", "a.png"])


def test_llava_tags_in_any_turn(tmp_path):
    row = {
        "id": "7",
        "image": ["a.png", "b.png"],
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": "A cat."},
            {"from": "human", "value": "And this?\n<image>"},
            {"from": "gpt", "value": "A dog."},
        ],
        "system": "Be brief.",
    }
    form, conversation = adapt(tmp_path, row)
    assert form == "sharegpt (column conversations holds from/value turns; not used: id)"
    assert shape(conversation) == [
        ("system", ["Be brief."]), ("user", ["a.png", "What is it?"]), ("assistant", ["A cat."]),
        ("user", ["And this?", "b.png"]), ("assistant", ["A dog."]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("images", "text", "message"),
    [
        (["a.png"], "<image><image>?", "1 images, but 2 <image> tags"), (["a.png", "b.png"], "<image>?", "2 images, but 1 <image> tags"),
        (["a.png"], "none", "1 images, but 0 <image> tags"), (None, "<image>?", "0 images, but 1 <image> tags"),
    ],
)  # fmt: skip
def test_placeholders_that_do_not_match(tmp_path, images, text, message):
    row = {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "x"}], "images": images}
    with pytest.raises(DataError, match=message) as caught:
        adapt(tmp_path, row)
    assert caught.value.reason == "placeholder_mismatch"


def test_question_answer_columns(tmp_path):
    form, conversation = adapt(tmp_path, {"Question": "How many?", "Answer": 3, "image": "a.png"})
    assert form == "qa (columns Question, Answer, image)"
    assert shape(conversation) == [("user", ["a.png", "How many?"]), ("assistant", ["3"])] and conversation.answers == ("3",)
    _, placed = adapt(tmp_path, {"question": "Is <image> like <image>?", "answer": "no", "images": ["a.png", "b.png"]})
    assert shape(placed)[0] == ("user", ["Is ", "a.png", " like ", "b.png", "?"])
    _, text = adapt(tmp_path, {"question": "Is <image> a tag?", "answer": "yes", "image": None})
    assert shape(text)[0] == ("user", ["Is <image> a tag?"])


def test_several_answers_train_on_the_most_frequent(tmp_path):
    row = {"question": "?", "image": "a.png", "answers": [{"answer": "cat"}, {"answer": "dog"}, {"answer": "dog"}]}
    _, conversation = adapt(tmp_path, row)
    assert conversation.messages[-1].text == "dog" and conversation.answers == ("cat", "dog", "dog")
    _, both = adapt(tmp_path, row | {"answer": "cat"})
    assert both.messages[-1].text == "cat" and both.answers == ("cat", "dog", "dog")


def test_captions_and_speech_with_their_prompts(tmp_path):
    form, caption = adapt(tmp_path, {"image": "a.png", "text": "A red corner."})
    assert form == "caption (columns image, text)"
    assert shape(caption) == [("user", ["a.png", "Describe the image."]), ("assistant", ["A red corner."])]
    form, speech = adapt(tmp_path, {"audio": "a.wav", "sentence": "Merhaba.", "lang": "Turkish"}, prompt="Write the {lang} {{speech}}.")
    assert form == "asr (columns audio, sentence)"
    assert shape(speech) == [("user", ["a.wav", "Write the Turkish {speech}."]), ("assistant", ["Merhaba."])]
    with pytest.raises(DataError, match="{lnag}.*did you mean {lang}"):
        adapt(tmp_path, {"audio": "a.wav", "sentence": "x", "lang": "y"}, prompt="{lnag}")


def test_columns_map_anything(tmp_path):
    row = {"file": "a.png", "frage": "Was?", "antwort": "Rot."}
    form, conversation = adapt(tmp_path, row, columns={"image": "file", "question": "frage", "answer": "antwort"})
    assert form == "qa (columns frage, antwort, file)"
    assert shape(conversation) == [("user", ["a.png", "Was?"]), ("assistant", ["Rot."])]


@pytest.mark.parametrize(
    ("row", "fields", "reason", "text"),
    [
        ({"file": "a", "q": "b"}, {"columns": {"question": "frage"}}, "unknown_column", "'frage'"),
        ({"question": "a", "answer": "b"}, {"columns": {"question": "qestion"}}, "unknown_column", "did you mean 'question'"),
        ({"question": "a", "answer": "b"}, {"columns": {"qestion": "question"}}, "unknown_role", "did you mean 'question'"),
        (
            {"question": "a", "answer": "b"},
            {"columns": {"caption": "answer"}, "format": "qa"},
            "bad_section",
            "no use for `columns: caption`",
        ),
        (
            {"image": "a", "question": "a", "answer": "b", "messages": [{"role": "user", "content": "x"}]},
            {},
            "ambiguous_format",
            "messages.*or qa",
        ),
        ({"image": "a", "audio": "b", "text": "c"}, {}, "ambiguous_format", "caption.*or asr"),
        ({"question": "a", "response": "b", "output": "c"}, {}, "ambiguous_format", "response, output"),
        ({"question": "a", "answer": "b", "img": "c", "picture": "d"}, {}, "ambiguous_format", "img, picture"),
        ({"x": 1}, {}, "unknown_format", "columns x"),
        ({"image": "a.png"}, {}, "unknown_format", "columns image"),
        ({"image": "a.png", "question": "?"}, {"format": "qa"}, "missing_field", "needs a column for answer"),
        ({"messages": [{"role": "user", "content": "x"}]}, {"prompt": "x"}, "bad_section", "own user turns"),
        ({"question": "a", "answer": "b"}, {"use": "medpix"}, "missing_field", "not the schema of mmoukouba/MedPix-VQA"),
    ],
)
def test_formats_that_cannot_be(tmp_path, row, fields, reason, text):
    with pytest.raises(DataError, match=text) as caught:
        adapt(tmp_path, row, **fields)
    assert caught.value.reason == reason and caught.value.fix


@pytest.mark.parametrize(
    ("messages", "reason", "text"),
    [
        ([{"role": "user", "contnet": "x"}], "unknown_field", "did you mean 'content'"),
        ([{"role": "usr", "content": "x"}], "unknown_role", "did you mean 'user'"),
        ([{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}], "bad_tool_call", "no name"),
        (user([{"type": "imge", "image": "a"}]), "unknown_field", "did you mean 'image'"),
        (user([{"type": "image", "imge": "a"}]), "unknown_field", "did you mean 'image'"),
        (user([{"type": "image"}]), "placeholder_mismatch", "without its image"),
        (user([{"type": "image", "image": "~/a.png"}]), "media_path", "full path"),
        (user([{"type": "image", "image": "file://host/a.png"}]), "media_path", "no local file"),
        (user([{"type": "image", "image": "a\0.png"}]), "media_path", "can't be one"),
        (user([{"type": "image", "image": "file:///a%00.png"}]), "media_path", "no local file"),
        (user([{"type": "image", "image": "file://[::1/a.png"}]), "media_path", "no local file"),
        (user([{"type": "image", "image": "a\ud83d.png"}]), "media_path", "can't be one"),
        (user([{"type": "image", "image": {"bytes": None, "path": None}}]), "image_missing", "neither bytes nor a path"),
        (user([{"type": "image", "image": ""}]), "image_missing", "path is empty"),
        (user([{"type": "image", "base64": "!!!"}]), "bad_base64", "not base64"),
        (user([{"type": "image", "image": 3}]), "wrong_type", "int"),
        (user([{"type": "text", "text": {"a": 1}}]), "wrong_type", "dict"),
        (user([{"type": "video", "video": "a.mp4", "num_frames": "4"}]), "wrong_type", "whole number"),
        ([{"role": "user", "content": "x", "train": "no"}], "wrong_type", "true or false"),
        ([{"role": ["user"], "content": "x"}], "unknown_role", "is unknown"),
        (user([{"type": ["text"], "text": "x"}]), "unknown_field", "content part of type"),
        (user([{"type": "image", "image": "a.png", "max_pixels": True}]), "wrong_type", "whole number"),
        (user(float("nan")), "wrong_type", "nan"),
        (["x"], "wrong_type", "is a str"),
        ([], "wrong_type", "empty"),
    ],
)
def test_messages_that_cannot_be(tmp_path, messages, reason, text):
    with pytest.raises(DataError, match=text) as caught:
        adapt(tmp_path, {"messages": messages}, format="messages")
    assert caught.value.reason == reason and caught.value.fix


def test_a_missing_field_names_the_nearest(tmp_path):
    spec = section(path=jsonl(tmp_path / "a.jsonl", [{"question": "a", "answer": "b"}, {"question": "a", "anwser": "b"}]))
    source = open_source(spec)
    _, adapter = find_adapter(spec, source)
    with pytest.raises(DataError, match="no 'answer'.*did you mean 'anwser'") as caught:
        adapter(source[1])
    assert caught.value.reason == "missing_field"


def test_a_null_is_told_from_a_missing_field(tmp_path):
    with pytest.raises(DataError, match="'answer' has no value"):
        adapt(tmp_path, {"question": "a", "answer": None})


def test_numbers_are_text_but_those_of_empty_cells_are_not(tmp_path):
    assert adapt(tmp_path, {"question": "a", "answer": 42})[1].answers == ("42",)
    assert shape(adapt(tmp_path, {"messages": [{"role": "user", "content": 1}, {"role": "assistant", "content": 2}]})[1])[1][1] == ["2"]
    for value in (float("nan"), float("inf")):
        with pytest.raises(DataError, match="no text") as caught:
            adapt(tmp_path, {"question": "a", "answer": value})
        assert caught.value.reason == "wrong_type"


def test_a_column_that_only_later_records_have_is_used(tmp_path):
    rows = [{"question": "a", "answer": "b"}] * 70
    late = [rows[0] | {"picture": "1.png", "system": "s"}, rows[0] | {"img": "1", "picture": "2"}]
    spec = section(path=jsonl(tmp_path / "a.jsonl", rows + late))
    source = open_source(spec)
    _, adapter = find_adapter(spec, source)
    assert shape(adapter(source[70])) == [("system", ["s"]), ("user", ["1.png", "a"]), ("assistant", ["b"])]
    with pytest.raises(DataError, match="could be any of img, picture"):
        adapter(source[71])


def test_a_file_without_columns_is_told_by_its_first_record(tmp_path):
    spec = section(path=jsonl(tmp_path / "a.jsonl", [[1], [2]]))
    with pytest.raises(DataError, match="a.jsonl:1: a record must be a JSON object"):
        find_adapter(spec, open_source(spec))
    with pytest.raises(DataError, match="holds a list under 'data'"):
        adapt(tmp_path, {"data": [{"question": "a", "answer": "b"}]})
    with pytest.raises(DataError, match="'answer' is the image"):
        adapt(tmp_path, {"question": "a", "answer": "b"}, columns={"image": "answer"})
    with pytest.raises(DataError, match="from .* is unknown"):
        adapt(tmp_path, {"conversations": [{"from": ["human"], "value": "a"}]})


def test_base64_text_is_told_from_a_path(tmp_path):
    jpeg = base64.b64encode(encoded(corner_picture(), "JPEG")).decode()
    assert jpeg.startswith("/9j/")
    _, conversation = adapt(tmp_path, {"question": "?", "answer": "x", "image": jpeg})
    assert conversation.media[0].data[:3] == b"\xff\xd8\xff"
    _, conversation = adapt(tmp_path, {"question": "?", "answer": "x", "image": "/9j/" + "a" * 60 + "/x"})
    assert conversation.media[0].path is not None


def run(function, tmp_path, row=None):
    spec = section(path=jsonl(tmp_path / "a.jsonl", [row or {"image": "a.png"}]), adapter="mine.py:f")
    source = open_source(spec)
    form, adapter = find_adapter(spec, source, function=function)
    assert form == "adapter mine.py:f"
    return adapter(source[0])


def test_a_function_may_return_messages_a_dict_or_a_conversation(tmp_path):
    first = run(lambda row: user([{"type": "image", "image": row["image"]}, {"type": "text", "text": "?"}]), tmp_path)
    assert shape(first) == [("user", ["a.png", "?"]), ("assistant", ["yes"])] and first.media[0].path == tmp_path / "a.png"
    second = run(lambda row: {"messages": user("?"), "answers": ["yes", "yep"]}, tmp_path)
    assert second.answers == ("yes", "yep")
    assert run(lambda row: first, tmp_path) is first
    picture = run(lambda row: user([{"type": "image", "image": Pillow.new("CMYK", (2, 2))}]), tmp_path)
    assert picture.media[0].data[:4] == b"II*\x00"


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda row: row["nothing"], "KeyError.*nothing"), (lambda row: 1 / 0, "ZeroDivisionError"), (lambda row: None, "None"),
        (lambda row: "text", "str"), (lambda row: {"message": []}, "message"), (lambda row: {"messages": [], "x": 1}, "messages.*x"),
    ],
)  # fmt: skip
def test_a_function_that_fails_is_told_with_its_line(tmp_path, function, text):
    with pytest.raises(DataError, match=text) as caught:
        run(function, tmp_path)
    assert caught.value.reason == "adapter_error"
    assert caught.value.problem.startswith("adapter mine.py:f ")
    if "Error" in text:
        assert "test_adapters.py:" in caught.value.problem


def raises(error: BaseException):
    raise error


class OwnError(Exception):
    """An exception class of a user's."""


@pytest.mark.parametrize("error", [Exception("why"), OwnError("why"), StopIteration("why"), SystemExit("why")])
def test_no_exception_of_a_function_is_a_traceback_of_ours(tmp_path, error):
    with pytest.raises(DataError, match=rf"failed at test_adapters.py:\d+ \(raises\): {type(error).__name__}: why"):
        run(lambda row: raises(error), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(lambda row: raises(KeyboardInterrupt()), tmp_path)


def test_the_line_is_the_users_not_a_librarys(tmp_path):
    with pytest.raises(DataError, match=r"failed at test_adapters.py:\d+ .*JSONDecodeError"):
        run(lambda row: json.loads("{"), tmp_path)
    with pytest.raises(DataError, match="what adapter mine.py:f returned: message 0: is a int"):
        run(lambda row: [1], tmp_path)


def test_a_function_not_loaded_and_keys_beside_it(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"a": 1}])
    with pytest.raises(DataError, match="was not loaded"):
        find_adapter(section(path=path, adapter="mine.py:f"), open_source(section(path=path)))
    with pytest.raises(DataError, match="`prompt` has no effect"):
        find_adapter(section(path=path, adapter="mine.py:f", prompt="x"), open_source(section(path=path)), function=dict)
