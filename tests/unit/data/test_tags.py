"""Tags and media: which `<image>` is a placeholder and which is text, in every format; and a recipe's own `tags:`."""

from __future__ import annotations

import pytest

from foveate.errors import DataError
from tests.unit.data.test_adapters import adapt, shape

HTML = "What is <image> in HTML?"
OPENING = "<image>\nWhat?"


def row_of(form: str, text: str, answer: str = "x", **more) -> dict:
    """The same question and answer in a format."""
    rows = {
        "messages": {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]},
        "typed": {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}, {"role": "assistant", "content": answer}]},
        "sharegpt": {"conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]},
        "alpaca": {"instruction": text, "input": "", "output": answer},
        "qa": {"question": text, "answer": answer},
        "trl": {"prompt": [{"role": "user", "content": text}], "completion": [{"role": "assistant", "content": answer}]},
        "multiple_choice": {"question": text, "choices": [answer, "y"], "answer": 0},
    }
    return rows[form] | more


FORMS = ("messages", "typed", "sharegpt", "alpaca", "qa", "trl", "multiple_choice")


@pytest.mark.parametrize("form", FORMS)
def test_26_a_tag_without_its_medium_is_text(tmp_path, form):
    for more in ({}, {"images": None}, {"images": []}, {"audio": "a.wav"}):
        if form == "sharegpt" and "audio" in more:  # every medium needs its tag there
            continue
        _, conversation = adapt(tmp_path, row_of(form, HTML, **more))
        assert conversation.messages[0].text.startswith(HTML)


@pytest.mark.parametrize("form", FORMS)
def test_25_a_tag_that_opens_a_line_is_a_placeholder_whose_medium_is_missing(tmp_path, form):
    for text in (OPENING, "What?\n<image>"):
        with pytest.raises(DataError, match="0 images, but 1 <image> tags") as caught:
            adapt(tmp_path, row_of(form, text, images=None))
        assert caught.value.reason == "placeholder_mismatch" and "must not open a line" in caught.value.fix


@pytest.mark.parametrize("form", [form for form in FORMS if form != "sharegpt"])
def test_without_a_column_of_media_no_tag_is_a_placeholder(tmp_path, form):
    _, conversation = adapt(tmp_path, row_of(form, "<video>\n<source>\n</video>\nWhat does it do?"))
    assert conversation.messages[0].text.startswith("<video>\n<source>")


@pytest.mark.parametrize("form", FORMS)
def test_a_tag_takes_its_medium_and_the_line_breaks_around_it(tmp_path, form):
    _, conversation = adapt(tmp_path, row_of(form, OPENING, images=["a.png"]))
    first, second = shape(conversation)[0][1]
    assert first == "a.png" and second.startswith("What?")
    _, several = adapt(tmp_path, row_of(form, "Is <image> like\n<image>", images=["a.png", "b.png"]))
    assert shape(several)[0][1][:4] == ["Is ", "a.png", " like", "b.png"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("images", "text"), [(["a.png"], "<image> or <image>?"), (["a.png", "b.png", "c.png"], "<image> or <image>?")])
def test_25_other_numbers_are_refused(tmp_path, form, images, text):
    with pytest.raises(DataError, match=f"{len(images)} images, but 2 <image> tags") as caught:
        adapt(tmp_path, row_of(form, text, images=images))
    assert caught.value.reason == "placeholder_mismatch"


@pytest.mark.parametrize("form", [form for form in FORMS if form != "multiple_choice"])
def test_a_tag_in_an_answer_is_text_beside_the_one_in_the_question(tmp_path, form):
    _, conversation = adapt(tmp_path, row_of(form, OPENING, answer="<image>\nis a tag", images=["a.png"]))
    assert conversation.messages[-1].text == "<image>\nis a tag" and len(conversation.media) == 1


@pytest.mark.parametrize("form", ["messages", "sharegpt", "trl"])
def test_a_medium_that_only_the_answer_asks_for_is_refused(tmp_path, form):
    with pytest.raises(DataError, match="assistant's turn") as caught:
        adapt(tmp_path, row_of(form, "Draw me an apple", answer="<image>", images=["a.png"]))
    assert caught.value.reason == "media_in_answer"
    with pytest.raises(DataError, match="2 images, but 0 <image> tags and 1 in answers"):
        adapt(tmp_path, row_of(form, "Draw me an apple", answer="<image>", images=["a.png", "b.png"]))


def test_phis_numbered_tags_as_automodel_writes_them(tmp_path):
    turns = [{"role": "user", "content": "<|audio_1|>Transcribe the Turkish audio clip."}, {"role": "assistant", "content": "Merhaba."}]
    form, conversation = adapt(tmp_path, {"conversation": turns, "audio": "a.wav"})
    assert form == "messages (column conversation holds role/content turns)"
    assert shape(conversation)[0] == ("user", ["a.wav", "Transcribe the Turkish audio clip."])
    turns[0]["content"] = "<|endoftext11|>Transcribe."
    assert shape(adapt(tmp_path, {"conversation": turns, "audio": "a.wav"})[1])[0] == ("user", ["a.wav", "Transcribe."])
    turns[0]["content"] = "<|image_2|><|image_1|>?"
    with pytest.raises(DataError, match=r"<\|image_2\|> where the image 1 belongs"):
        adapt(tmp_path, {"conversation": turns, "images": ["a.png", "b.png"]})


@pytest.mark.parametrize(
    ("turn", "tags", "form"),
    [
        ({"who": "{}", "said": "{}"}, {"role": "who", "content": "said"}, "messages (column messages holds who/said turns)"),
        ({"role": "{}", "text": "{}"}, {"content": "text"}, "messages (column messages holds role/text turns)"),
        ({"from": "{}", "text": "{}"}, {"content": "text"}, "sharegpt (column messages holds from/text turns)"),
        ({"from": "{}", "value": "{}"}, {}, "sharegpt (column messages holds from/value turns)"),
    ],
)
def test_keys_and_speakers_of_a_recipe(tmp_path, turn, tags, form):
    def said(speaker: str, text: str) -> dict:
        return {key: value.format(speaker if key in ("who", "role", "from") else text) for key, value in turn.items()}

    turns = [
        said("boss", "Be brief."),
        said("customer", "<image>Hi"),
        said("agent", "Hello"),
        said("machine", "42"),
        said("agent", "It is 42"),
    ]
    speakers = {"user": "customer", "assistant": "agent", "system": "boss", "tool": "machine"}
    found, conversation = adapt(tmp_path, {"messages": turns, "images": ["a.png"]}, tags=tags | speakers)
    assert found == form
    assert [role for role, _ in shape(conversation)] == ["system", "user", "assistant", "tool", "assistant"]
    assert shape(conversation)[1] == ("user", ["a.png", "Hi"])
    with pytest.raises(DataError, match="'boss' is unknown.*tags:") as caught:
        adapt(tmp_path, {"messages": turns, "images": ["a.png"]}, tags=tags)
    assert caught.value.reason == "unknown_role"


@pytest.mark.parametrize(
    ("tags", "reason", "text"),
    [
        ({"rol": "who"}, "unknown_tag", "no 'rol'; did you mean 'role'"),
        ({"user_tag": "x"}, "unknown_tag", "did you mean 'user'"),
        ({"user": "x", "assistant": "x"}, "unknown_tag", "one name to two"),
        ({"role": "x", "content": "x"}, "unknown_tag", "one name to two"),
    ],
)
def test_tags_that_cannot_be(tmp_path, tags, reason, text):
    with pytest.raises(DataError, match=text) as caught:
        adapt(tmp_path, row_of("messages", "?"), tags=tags)
    assert caught.value.reason == reason and "data.jsonl" in caught.value.where and caught.value.fix


def test_tags_of_a_format_without_turns(tmp_path):
    with pytest.raises(DataError, match="no turns that `tags` could name") as caught:
        adapt(tmp_path, row_of("qa", "?"), tags={"user": "x"})
    assert caught.value.reason == "bad_section"
