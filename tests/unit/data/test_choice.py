"""Multiple choice: how the question is written, and which choice an answer is."""

from __future__ import annotations

import json

import pytest

from foveate.data.adapters.choice import place_of
from foveate.data.mixture import build_mixture
from foveate.errors import DataError
from tests.unit.data.build import jsonl, section
from tests.unit.data.test_adapters import adapt, shape

LAST = "Answer with the option's letter from the given choices directly."


def turn(tmp_path, row: dict, **fields) -> tuple[str, str]:
    """The user's text and the answer of one record."""
    _, conversation = adapt(tmp_path, row, **fields)
    return conversation.messages[0].text, conversation.answers[0]


def test_scienceqa_is_written_line_by_line(tmp_path):
    row = {"image": "a.png", "question": "Which?", "choices": ["a heron ", "an owl"], "answer": 1, "hint": "Look.", "lecture": "Long."}
    form, conversation = adapt(tmp_path, row)
    assert form == "multiple_choice (columns hint, question, choices, answer, image; not used: lecture)"
    assert shape(conversation) == [("user", ["a.png", f"Look.\nWhich?\nA. a heron\nB. an owl\n{LAST}"]), ("assistant", ["B"])]
    assert conversation.answers == ("B",)
    assert turn(tmp_path, row | {"hint": "", "image": None}) == (f"Which?\nA. a heron\nB. an owl\n{LAST}", "B")
    assert turn(tmp_path, row, prompt="Letter, {lecture}")[0].endswith("\nB. an owl\nLetter, Long.")


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        (("A", "B", "C"), {}),
        (("a", "b", "c"), {}),
        (("option_a", "option_b", "option_c"), {}),
        (("Choice A", "Choice B", "Choice C"), {}),
        (("first", "second", "third"), {"columns": {"choices": "first, second, third"}, "format": "multiple_choice"}),
    ],
)
def test_a_column_for_each_choice(tmp_path, columns, fields):
    row = dict(zip(columns, ("red", "green", "blue"), strict=True))
    assert turn(tmp_path, {"question": "?", "answer": "B", **row}, **fields) == (f"?\nA. red\nB. green\nC. blue\n{LAST}", "B")
    assert turn(tmp_path, {"question": "?", "answer": "B", **row, columns[2]: None}, **fields)[0] == f"?\nA. red\nB. green\n{LAST}"
    with pytest.raises(DataError, match="is empty, a later one is not"):
        turn(tmp_path, {"question": "?", "answer": "B", **row, columns[1]: ""}, **fields)


def test_choices_as_text_as_objects_and_in_a_table(tmp_path):
    for choices in ('["red", "green"]', "['red', 'green']", {"text": ["red", "green"], "label": ["1", "2"]}, {"A": "red", "B": "green"}):
        answer = "2" if isinstance(choices, dict) and "text" in choices else "B"
        row = {"question": "?", "choices": choices, "answer": answer}
        assert turn(tmp_path, row, format="multiple_choice") == (f"?\nA. red\nB. green\n{LAST}", "B")
    (tmp_path / "a.csv").write_text("image,question,A,B,C,answer\n1.jpg,What?,an owl,a heron,,B\n")
    mixture = build_mixture([section(path=tmp_path / "a.csv")])
    assert mixture.formats == ("multiple_choice (columns question, answer, image)",)
    assert mixture.conversation(0).messages[0].text == f"What?\nA. an owl\nB. a heron\n{LAST}"


@pytest.mark.parametrize(
    ("answer", "choices", "place"),
    [
        (0, ["x", "y"], 0),
        (1.0, ["x", "y"], 1),
        ("1", ["x", "y"], 1),
        ("B", ["x", "y"], 1),
        ("b.", ["x", "y"], 1),
        ("(B)", ["x", "y"], 1),
        ("y", ["x", "y"], 1),
        (["y"], ["x", "y"], 1),
        (1, ["3", "1"], 1),
        ("A", ["A", "B"], 0),
    ],
)
def test_an_answer_is_a_position_a_letter_or_a_text(answer, choices, place):
    assert place_of(answer, choices) == place


@pytest.mark.parametrize(
    ("answer", "choices", "text"),
    [
        (2, ["x", "y"], "none of the choices A, B"),
        (-1, ["x", "y"], "none of"),
        ("C", ["x", "y"], "none of"),
        ("z", ["x", "y"], "none of"),
        ("1", ["1", "2"], "could be choice A or B"),
        ("A", ["B", "A"], "could be choice A or B"),
        ("x", ["x", "x"], "could be choice A or B"),
        (["x", "y"], ["x", "y"], "2 right answers"),
    ],
)
def test_a_wrong_or_doubtful_answer_is_refused(answer, choices, text):
    with pytest.raises(DataError, match=text) as caught:
        place_of(answer, choices)
    assert caught.value.reason == "bad_choice" and caught.value.fix


def test_what_the_answer_is_can_be_said():
    assert place_of("1", ["1", "2"], kind="index") == 1
    assert place_of("A", ["B", "A"], kind="letter") == 0
    assert place_of(5, ["3", "5"], kind="text") == 1
    with pytest.raises(DataError, match="could be choice A or B"):
        place_of(1, ["1", "2"], numbers=True)


@pytest.mark.parametrize(
    ("choices", "reason", "text"),
    [
        (["only"], "bad_choice", "1 choices"),
        ([str(number) for number in range(27)], "bad_choice", "27 choices"),
        (["a", " "], "bad_choice", "choice B is empty"),
        ("red, green", "wrong_type", "no list"),
        ({"red": 1}, "wrong_type", "object with red"),
        (["a", ["b"]], "wrong_type", "choice B is a list"),
        (3, "wrong_type", "are a int"),
        ("[" * 9000, "wrong_type", "no list"),
        (["a", None], "wrong_type", "choice B is a NoneType"),
    ],
)
def test_choices_that_cannot_be(tmp_path, choices, reason, text):
    with pytest.raises(DataError, match=text) as caught:
        turn(tmp_path, {"question": "?", "choices": choices, "answer": 0}, format="multiple_choice")
    assert caught.value.reason == reason and caught.value.fix


def test_a_list_of_choices_makes_the_difference_to_question_and_answer(tmp_path):
    row = {"question": "?", "answer": "x", "options": ["x", "y"]}
    assert build_mixture([section(path=jsonl(tmp_path / "a.jsonl", [row]))]).formats[0].startswith("multiple_choice (")
    assert build_mixture([section(path=jsonl(tmp_path / "b.jsonl", [row | {"options": "none"}]))]).formats[0].startswith("qa (")
    assert build_mixture([section(path=jsonl(tmp_path / "c.jsonl", [row]), format="qa")]).conversation(0).messages[0].text == "?"
    assert json.loads((tmp_path / "a.jsonl").read_text()) == row
