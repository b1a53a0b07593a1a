"""Metrics against worked examples and the published formula written out naively."""

from __future__ import annotations

import itertools

import pytest

from foveate.errors import FoveateError
from foveate.evaluate import metrics


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("cat", ["cat"], 1.0),
        ("  The Cat.\n", ["the cat"], 1.0),
        ("3.5", ["35"], 0.0),
        ("A", ["a"], 1.0),
        ("A", ["B"], 0.0),
        ("the", ["a"], 0.0),
        ("wait...", ["wait.."], 0.0),
        ("ﬁve", ["five"], 1.0),
        ("b", ["a", "b"], 1.0),
        ("", ["a"], 0.0),
        ("-3", ["3"], 0.0),
    ],
)
def test_exact_match(prediction, answers, expected):
    assert metrics.score("exact_match", prediction, answers) == expected


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("The two dogs!", "2 dogs"),
        ("dont know", "don't know"),
        ("yall'd've", "y'all'd've"),
        ("1,000 people", "1000 people"),
        ("red/blue", "red blue"),
        ("red / blue", "red blue"),
        ("u.s.", "us"),
        ("3.5", "3.5"),
        ("none", "0"),
        ("black, white", "black white"),
        ("black-white", "black white"),
        ("line\nbreak", "line break"),
        ("5'9\"", "5'9"),
    ],
)
def test_vqa_normalisation(raw, normal):
    assert metrics.normalize_vqa(raw) == normal


def naive_vqa(prediction: str, answers: list[str]) -> float:
    """The formula as the paper writes it: all leave-one-out subsets."""
    subsets = list(itertools.combinations(range(len(answers)), len(answers) - 1))
    return sum(min(sum(answers[i] == prediction for i in subset) / 3, 1) for subset in subsets) / len(subsets)


@pytest.mark.parametrize("matches", range(11))
def test_vqa_accuracy_of_ten_answers(matches):
    answers = ["red"] * matches + [f"other{i}" for i in range(10 - matches)]
    assert metrics.score("vqa_accuracy", "red", answers) == pytest.approx(naive_vqa("red", answers))


def test_vqa_accuracy_published_values():
    assert metrics.vqa_accuracy("red", ["red"] * 1 + ["blue"] * 9) == pytest.approx(0.3)
    assert metrics.vqa_accuracy("red", ["red"] * 2 + ["blue"] * 8) == pytest.approx(0.6)
    assert metrics.vqa_accuracy("red", ["red"] * 3 + ["blue"] * 7) == pytest.approx(0.9)
    assert metrics.vqa_accuracy("red", ["red"] * 4 + ["blue"] * 6) == 1.0


def test_vqa_accuracy_with_few_answers_is_any_match():
    assert metrics.vqa_accuracy("Two", ["2"]) == 1.0
    assert metrics.vqa_accuracy("two", ["3", "2", "4"]) == 1.0
    assert metrics.vqa_accuracy("two", ["3"]) == 0.0


def test_wer_counts_edits_over_words():
    pytest.importorskip("jiwer")
    assert metrics.score("wer", "the cat sat", ["The cat sat."]) == 0.0
    assert metrics.score("wer", "the hat sat down", ["the cat sat"]) == pytest.approx(2 / 3)
    assert metrics.score("wer", "", ["one two"]) == 1.0
    assert metrics.score("wer", "one two", ["..."]) == 2.0
    assert metrics.score("wer", "", ["!"]) == 0.0
    assert metrics.score("wer", "it's", ["it’s"]) == 0.0
    assert metrics.score("wer", "a b", ["x y", "a b"]) == 0.0


def test_wer_of_a_set_weighs_by_words():
    pytest.importorskip("jiwer")
    assert metrics.aggregate("wer", ["a", "x x x"], [["b"], ["x x x"]]) == pytest.approx(1 / 4)
    assert metrics.aggregate("exact_match", ["a", "b"], [["a"], ["c"]]) == 0.5


def test_errors_name_the_fix():
    with pytest.raises(FoveateError, match="choose from exact_match"):
        metrics.score("bleu", "a", ["a"])
    with pytest.raises(FoveateError, match="expected answer"):
        metrics.score("exact_match", "a", [])
    with pytest.raises(FoveateError, match="0 predictions"):
        metrics.aggregate("exact_match", [], [])


def test_direction():
    assert metrics.higher_is_better("exact_match") and not metrics.higher_is_better("wer") and not metrics.higher_is_better("loss")
