"""What an answer is worth: exact match, VQA accuracy and word error rate, each by its published formula.

Every score is a share (1.0 = 100%). `score` rates one answer, `aggregate` a whole held-out set. Nothing here imports torch.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from foveate.errors import FoveateError
from foveate.events import LOWER_IS_BETTER

# Metrics that need generated answers; `loss` comes from the forward pass alone.
GENERATED = ("exact_match", "vqa_accuracy", "wer")

# The VQA evaluator restores apostrophes: each of these, written with any one apostrophe missing, becomes the form here.
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd how'll how's
isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've
should've shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()


def _missing_one(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i, letter in enumerate(word) if letter == "'"]


_CONTRACTIONS = {short: word for word in _CONTRACTED for short in _missing_one(word)}
_NUMBERS = {word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())} | {"none": "0"}
_ARTICLES = frozenset({"a", "an", "the"})
_VQA_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_COMMA = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")


def higher_is_better(metric: str) -> bool:
    """Whether a larger value of `metric` is the better one: false for `loss` and `wer`."""
    return metric not in LOWER_IS_BETTER


def score(metric: str, prediction: str, answers: Sequence[str]) -> float:
    """The score of one answer against all accepted answers.

    `exact_match` and `vqa_accuracy` lie in [0, 1]; `wer` is 0 for a perfect transcription and may pass 1.
    Raises FoveateError for an unknown metric or when there is no accepted answer.
    """
    if not answers:
        raise FoveateError(f"{metric} needs at least one expected answer", fix="give each held-out record an answer")
    if metric == "exact_match":
        return exact_match(prediction, answers)
    if metric == "vqa_accuracy":
        return vqa_accuracy(prediction, answers)
    if metric == "wer":
        edits, words = word_errors(prediction, answers)
        return edits / max(words, 1)
    raise FoveateError(f"`{metric}` is not a metric of generated answers", fix=f"choose from {', '.join(GENERATED)}")


def aggregate(metric: str, predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> float:
    """The score of a whole set.

    Exact match and VQA accuracy: the mean over answers. Word error rate: all edits divided by all reference words, as is usual
    in speech recognition, so that long utterances weigh more than short ones (it is not the mean of per-utterance rates).
    """
    if len(predictions) != len(answers) or not predictions:
        raise FoveateError(f"{metric} got {len(predictions)} predictions for {len(answers)} records", fix="evaluate at least one record")
    if metric == "wer":
        pairs = [word_errors(prediction, accepted) for prediction, accepted in zip(predictions, answers, strict=True)]
        return sum(edits for edits, _ in pairs) / max(sum(words for _, words in pairs), 1)
    return sum(score(metric, prediction, accepted) for prediction, accepted in zip(predictions, answers, strict=True)) / len(predictions)


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 when the prediction equals any accepted answer after `normalize_exact`, else 0.0."""
    return float(normalize_exact(prediction) in {normalize_exact(answer) for answer in answers})


def normalize_exact(text: str) -> str:
    """Unicode NFKC, case folded, white space collapsed, one closing full stop dropped.

    Deliberately milder than SQuAD's rule (Rajpurkar et al. 2016), which also deletes punctuation and articles: that makes
    `3.5` equal `35`, and the multiple-choice answer `A` equal to nothing at all.
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy (Antol et al. 2015, section 3; the evaluator released with VQA v2, Goyal et al. 2017).

    For every annotator in turn, min(matches among the others / 3, 1); the mean of these. Ten answers are usual. The formula can
    reach 1 from four answers on and is applied from there; with one to three answers there is no vote to take, so any match
    counts 1. Both sides are always normalised by `normalize_vqa` (the released evaluator leaves them as they are where all
    annotators agree word for word, which punishes a correct `Two` against ten times `two`).
    """
    given = normalize_vqa(prediction)
    matches = sum(normalize_vqa(answer) == given for answer in answers)
    count = len(answers)
    if count < 4:
        return float(matches > 0)
    # Leaving out a matching annotator leaves matches - 1 matches; that happens `matches` times.
    left_out = matches * min((matches - 1) / 3, 1.0) if matches else 0.0
    return (left_out + (count - matches) * min(matches / 3, 1.0)) / count


def normalize_vqa(text: str) -> str:
    """The VQA evaluator's normalisation: punctuation, lower case, digits for number words, no articles, restored apostrophes.

    A punctuation mark is deleted where the text holds it next to a space or holds a number such as 1,000, and becomes a space
    otherwise; full stops go unless a digit follows. Reference: vqaEvaluation/vqaEval.py of github.com/GT-Vision-Lab/VQA.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    grouped = _NUMBER_COMMA.search(text) is not None
    cleaned = text
    for mark in _VQA_PUNCTUATION:
        cleaned = cleaned.replace(mark, "" if grouped or f"{mark} " in text or f" {mark}" in text else " ")
    words = (_NUMBERS.get(word, word) for word in _FULL_STOP.sub("", cleaned).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def word_errors(prediction: str, answers: Sequence[str]) -> tuple[int, int]:
    """(edits, reference words) against the accepted transcription with the lowest rate.

    WER = (substitutions + deletions + insertions) / reference words; the alignment is jiwer's. Both sides are normalised by
    `normalize_speech` first. A reference without words counts every predicted word as an insertion.
    """
    try:
        import jiwer
    except ImportError as error:
        raise FoveateError("the wer metric needs the package jiwer", fix='pip install "foveate[audio]"') from error
    hypothesis, best = normalize_speech(prediction), None
    for reference in map(normalize_speech, answers):
        words = len(reference.split())
        if words:
            found = jiwer.process_words(reference, hypothesis)
            edits = found.substitutions + found.deletions + found.insertions
        else:
            edits = len(hypothesis.split())
        if best is None or edits / max(words, 1) < best[0] / max(best[1], 1):
            best = (edits, words)
    assert best is not None, "callers pass at least one answer"
    return best


def normalize_speech(text: str) -> str:
    """Unicode NFKC, case folded, punctuation and symbols out except apostrophes inside words, white space collapsed.

    Language-neutral: numbers stay as written and the Turkish dotless i is not guessed (folding follows Unicode).
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    kept = "".join(letter if letter == "'" or unicodedata.category(letter)[0] not in "PS" else " " for letter in text)
    return " ".join(word for word in (piece.strip("'") for piece in kept.split()) if word)
