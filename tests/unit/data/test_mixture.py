"""Several sources as one: weights, rules, checks, and the same verdict for a record always."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest

from foveate.data.mixture import build_mixture, check_conversation, evenly, weigh
from foveate.errors import DataError, FoveateError
from foveate.types import Conversation, Image, Message, Text
from tests.unit.data.build import corner_picture, jsonl, qa_rows, section


def turn(role: str, *parts, train: bool = True) -> Message:
    return Message(role=role, parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts), train=train)


def rows_of(mixture) -> Counter:
    return Counter(mixture.locate(index) for index in range(len(mixture)))


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.5, 0.999, 1.0, 1.5, 2.0, 2.25])
@pytest.mark.parametrize("count", [10, 97, 1000])
def test_weights_give_full_copies_and_a_fixed_part(weight, count):
    weighted = weigh(count, weight, "key")
    rows = Counter(weighted.row(place) for place in range(len(weighted)))
    part = int((weight - int(weight)) * count + 0.5)
    assert len(weighted) == int(weight) * count + part
    assert Counter(rows.values()) == Counter({int(weight) + 1: part, int(weight): count - part if weight >= 1 else 0}) - Counter()
    assert weighted.distinct == len(rows)


@pytest.mark.parametrize(("count", "most", "places"), [(10, 3, [0, 3, 6]), (3, 10, [0, 1, 2]), (0, 4, [])])
def test_places_are_spread_evenly(count, most, places):
    assert evenly(count, most) == places


def test_a_part_is_spread_over_the_source_and_depends_on_the_name():
    rows = sorted(weigh(1000, 0.1, "a").row(place) for place in range(100))
    assert max(b - a for a, b in zip(rows, rows[1:], strict=False)) < 60
    odd = sum(row % 2 for row in rows)
    assert odd == 50  # questions that come by turns are both taken
    assert rows != sorted(weigh(1000, 0.1, "b").row(place) for place in range(100))
    assert rows == sorted(weigh(1000, 0.1, "/moved/elsewhere/a").row(place) for place in range(100))


@pytest.mark.parametrize(("records", "count"), [(10, 3), (10, 10), (10, 25), (1, 4)])
def test_a_count_gives_so_many_places(records, count):
    weighted = weigh(records, 1.0, "key", count)
    rows = Counter(weighted.row(place) for place in range(len(weighted)))
    assert len(weighted) == count and max(rows.values()) - min(rows.values()) <= 1
    assert weighted.distinct == len(rows) == min(records, count)


def test_counts_set_the_proportions_of_an_epoch(tmp_path):
    mixture = build_mixture(
        [
            section(path=jsonl(tmp_path / "a.jsonl", qa_rows(7)), count=30),
            section(path=jsonl(tmp_path / "b.jsonl", qa_rows(50)), count=10),
        ]
    )
    assert len(mixture) == 40 and mixture.records == 17
    assert Counter(mixture.locate(place)[0] for place in range(40)) == {0: 30, 1: 10}
    assert [line.split(", format")[0].split(": ", 1)[1] for line in mixture.describe()] == [
        "7 records, count 30: 30 an epoch",
        "50 records, count 10: 10 an epoch",
    ]


def test_a_weight_that_leaves_nothing_is_an_error(tmp_path):
    with pytest.raises(DataError, match="leaves none") as caught:
        build_mixture([section(path=jsonl(tmp_path / "a.jsonl", qa_rows(2)), weight=0.1)])
    assert caught.value.reason == "source_empty"


def test_places_sources_origins_and_counts(tmp_path):
    mixture = build_mixture(
        [
            section(path=jsonl(tmp_path / "a.jsonl", qa_rows(4)), weight=2.5),
            section(path=jsonl(tmp_path / "b.jsonl", qa_rows(10)), weight=0.3),
            section(path=jsonl(tmp_path / "c.jsonl", qa_rows(3)), limit=2),
        ]
    )
    assert len(mixture) == 10 + 3 + 2 and mixture.records == 4 + 3 + 2
    counts = rows_of(mixture)
    assert sum(count for (number, _), count in counts.items() if number == 0) == 10
    assert {mixture.locate(index) for index in mixture.distinct()} == set(counts)
    assert mixture.conversation(0).origin == mixture.conversation(4).origin
    assert mixture.conversation(14).origin.file.endswith("c.jsonl") and mixture.conversation(14).origin.row == 1
    for index in (-1, 15):
        with pytest.raises(IndexError):
            mixture.conversation(index)
    lines = mixture.describe()
    assert lines[0].endswith("a.jsonl: 4 records, weight 2.5: 10 an epoch, format qa (columns question, answer)") and len(lines) == 3


def test_the_recipes_rules_are_put_in(tmp_path):
    corner_picture(100, 100).save(tmp_path / "a.png")
    path = jsonl(tmp_path / "a.jsonl", [{"image": "a.png", "question": "?", "answer": "x"}])
    conversation = build_mixture([section(path=path, system="Be brief.", max_pixels=64)]).conversation(0)
    assert [message.role for message in conversation.messages] == ["system", "user", "assistant"]
    assert conversation.media[0].max_pixels == 64
    messages = [{"role": "system", "content": "Own."}, {"role": "user", "content": [{"type": "image", "image": "a.png", "max_pixels": 9}]}]
    path = jsonl(tmp_path / "b.jsonl", [{"messages": [*messages, {"role": "assistant", "content": "x"}]}])
    conversation = build_mixture([section(path=path, system="Be brief.", max_pixels=64)]).conversation(0)
    assert conversation.messages[0].text == "Own." and conversation.media[0].max_pixels == 9 and conversation.answers == ("x",)


def test_media_root(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"image": "a.png", "question": "?", "answer": "x"}])
    mixture = build_mixture([section(path=path, media_root=tmp_path / "pictures")])
    assert mixture.conversation(0).media[0].path == tmp_path / "pictures/a.png"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((turn("assistant", "x"),), "role_order"),
        ((turn("user", "a"), turn("user", "b"), turn("assistant", "x")), "role_order"),
        ((turn("user", "a"), turn("assistant", "x"), turn("user", "b"), turn("tool", "t")), "role_order"),
        ((turn("user", "a"), turn("system", "s"), turn("assistant", "y")), "role_order"),
        ((turn("user", "a"), turn("assistant", "x"), turn("user", "b")), "role_order"),
        ((turn("user", "a"), turn("assistant", "x"), turn("tool", "t")), "role_order"),
        ((turn("user", "a"), turn("assistant", " \n")), "empty_answer"),
        ((turn("user", "a"), turn("assistant")), "empty_answer"),
        ((turn("user", " "), turn("assistant", "x")), "empty_question"),
        ((turn("user", "a"), turn("assistant", "x", train=False)), "no_trained_turn"),
        ((turn("user", "a"),), "no_trained_turn"),
        ((turn("user", "a\ud83d"), turn("assistant", "x")), "bad_text"),
        ((turn("user", "a"), turn("assistant", Image(data=b"x"), "x")), "media_in_answer"),
    ],
)
def test_conversations_that_cannot_be_trained_on(messages, reason):
    with pytest.raises(DataError) as caught:
        check_conversation(Conversation(messages=messages))
    assert caught.value.reason == reason and caught.value.fix


def test_conversations_that_can():
    picture = Image(data=b"x")
    check_conversation(Conversation(messages=(turn("user", picture), turn("assistant", "x"))))
    check_conversation(
        Conversation(
            messages=(turn("system", "s"), turn("user", "a"), turn("assistant", "", train=False), turn("tool", "t"), turn("assistant", "x"))
        )
    )


def test_every_error_names_file_and_row(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [*qa_rows(2), {"question": "?", "answer": ""}])
    with path.open("a") as file:
        file.write("{broken\n")
    mixture = build_mixture([section(path=path)])
    with pytest.raises(DataError) as caught:
        mixture.conversation(2)
    assert caught.value.where == f"{path} row 2" and caught.value.reason == "empty_answer"
    with pytest.raises(DataError) as caught:
        mixture.conversation(3)
    assert caught.value.where == f"{path}:4:2"  # record 3 is line 4


def test_it_is_the_same_after_pickling_and_each_time(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [*qa_rows(5), {"question": "?", "answer": ""}])
    mixture = build_mixture([section(path=path, weight=1.5)])
    other = pickle.loads(pickle.dumps(mixture))
    for index in range(len(mixture)):
        results = []
        for each in (mixture, other, mixture):
            try:
                results.append(each.conversation(index))
            except DataError as error:
                results.append(str(error))
        assert results[0] == results[1] == results[2]
    assert other.fingerprint() == mixture.fingerprint()


def test_the_fingerprint_follows_content_rules_and_code(tmp_path):
    path, other = jsonl(tmp_path / "a.jsonl", qa_rows(5)), jsonl(tmp_path / "b.jsonl", qa_rows(5))
    base = build_mixture([section(path=path)]).fingerprint()
    assert build_mixture([section(path=other)]).fingerprint() == base  # where it lies is no part of it
    for change in ({"weight": 2.0}, {"system": "x"}, {"limit": 3}, {"prompt": "{question}!"}, {"split": "[1:]"}, {"max_pixels": 9}):
        assert build_mixture([section(path=path, **change)]).fingerprint() != base, change
    assert build_mixture([section(path=jsonl(path, qa_rows(6)))]).fingerprint() != base


def test_a_users_function_is_part_of_the_fingerprint(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", qa_rows(2))
    spec = section(path=path, adapter="mine.py:f")
    prints = []
    for answer in ("x", "y"):
        code = tmp_path / f"{answer}.py"
        code.write_text(f"def f(row):\n    return [{{'role': 'user', 'content': '?'}}, {{'role': 'assistant', 'content': '{answer}'}}]\n")
        space: dict = {}
        exec(compile(code.read_text(), str(code), "exec"), space)
        mixture = build_mixture([spec], functions={"mine.py:f": space["f"]})
        assert mixture.conversation(0).messages[1].text == answer
        prints.append(mixture.fingerprint())
    assert prints[0] != prints[1]


def test_the_code_of_an_object_with_call_is_its_class(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"a": "x"}])
    spec = section(path=path, adapter="mine.py:convert")
    for function in (Converter(), print):  # an object, and a function without source: both must have a fingerprint
        assert build_mixture([spec], functions={"mine.py:convert": function}).fingerprint()


class Converter:
    """An adapter that is no function."""

    def __call__(self, row):
        return [{"role": "user", "content": row["a"]}, {"role": "assistant", "content": "y"}]


def test_a_file_that_changes_stops_the_run_and_is_no_bad_record(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", qa_rows(3))
    mixture = build_mixture([section(path=path)])
    jsonl(path, qa_rows(4))
    for read in (mixture.row, mixture.conversation):
        with pytest.raises(FoveateError, match="changed since it was indexed") as caught:
            read(1)
        assert not isinstance(caught.value, DataError)
        assert str(path) in caught.value.where and "--resume" in caught.value.fix
    path.unlink()
    with pytest.raises(FoveateError, match="cannot be read any more") as caught:
        mixture.conversation(1)
    assert not isinstance(caught.value, DataError)
