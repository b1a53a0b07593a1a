"""Runs of a special token spliced into ids and places: the same as tokenizing the whole text, for every tokenizer there is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.encode import marks
from foveate.encode.splice import Places, Splicer
from foveate.encode.tap import Tap
from foveate.model.tiny import BUILDS, processor

FAMILIES = sorted(BUILDS)


def taps(name: str) -> tuple[Tap, Tap]:
    """(one that splices, one that never does)."""
    spliced, long = (Tap(processor(name)) for _ in range(2))
    long.tokenizer.foveate_splicer = Splicer({}, [])
    return spliced, long


def same(spliced: Tap, long: Tap, text: str, options: dict) -> None:
    for _ in range(3):  # learnt, proven, relied on
        found, wanted = spliced.tokenize(text, options), long.tokenize(text, options)
        assert (found.ids, found.offsets, found.names, found.text) == (wanted.ids, wanted.offsets, wanted.names, wanted.text)
        assert found.marked == wanted.marked


@pytest.mark.parametrize("name", FAMILIES)
def test_a_spliced_text_is_the_whole_text(name):
    spliced, long = taps(name)
    words = list(dict.fromkeys(spliced.steady.values()))[:12]
    for word in words:
        marked = f"{marks.begin(0)}one {marks.end(0)}{word * 40} é日 {marks.begin(1)}two{marks.end(1)}{word * 9}{word}\n{word * 3}three"
        for options in ({}, {"add_special_tokens": False}, {"return_token_type_ids": True}):
            same(spliced, long, marked, options)
    assert spliced.tokenizer.foveate_splicer.proven(spliced.tokenizer.foveate_splicer.shorten(words[0] * 20)[1])


PIECES = st.lists(
    st.sampled_from(["a", " b\n", "<image>", "<image>" * 9, "<image>" * 30, "<fake_token_around_image>" * 8, "日"]), max_size=8
)
SPLICED, LONG = taps("smolvlm")


@given(pieces=PIECES)
def test_any_text(pieces):
    same(SPLICED, LONG, "".join(pieces) or "x", {})


def test_cutting_filling_and_several_texts_go_the_long_way():
    text = "a " + "<image>" * 50
    for options in ({"truncation": True, "max_length": 10}, {"padding": "max_length", "max_length": 80}):
        same(SPLICED, LONG, text, options)
    with SPLICED.listen() as found:
        SPLICED.tokenizer([text, "b"], padding=True)
    with LONG.listen() as wanted:
        LONG.tokenizer([text, "b"], padding=True)
    assert [heard.ids for heard in found] == [heard.ids for heard in wanted]


def test_a_word_for_which_the_ways_differ_is_given_up():
    splicer = Splicer({7: "<x>"}, ["<x>"])
    splicer.learn([7] * 20)
    short, runs = splicer.shorten("a" + "<x>" * 20)
    assert short == "a<x>" and runs[0].count == 20 and not splicer.proven(runs)
    splicer.prove(runs, {"input_ids": [1, *[7] * 20]}, {"input_ids": [1, *[8] * 10]})
    assert splicer.shorten("a" + "<x>" * 20) == ("a" + "<x>" * 20, [])


def test_a_word_that_another_token_holds_twice_is_never_spliced():
    splicer = Splicer({7: "<x>"}, ["<x>", "<x><x>"])
    splicer.learn([7] * 20)
    assert splicer.shorten("<x>" * 20) == ("<x>" * 20, [])


def test_places_answer_as_the_tokenizer_does():
    encoding = LONG.tokenizer("a <image><image> blue b", return_offsets_mapping=True)
    places = Places(encoding["offset_mapping"])
    text = "a <image><image> blue b"
    assert [places.char_to_token(i) for i in range(len(text))] == [encoding.char_to_token(i) for i in range(len(text))]
