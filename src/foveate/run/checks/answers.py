"""Held-out answers: whether the metrics and limits of `evaluate:` suit them."""

from __future__ import annotations

from foveate.config.recipe import Recipe
from foveate.encode.encoder import Encoder
from foveate.errors import DataError
from foveate.model.loss import IGNORED
from foveate.run.checks.findings import Checked
from foveate.run.checks.records import Scanned, conversation_at


def check_answers(result: Checked, recipe: Recipe, scanned: Scanned, encoder: Encoder) -> None:
    """The longest held-out answer against evaluate.max_new_tokens, and metrics that want several accepted answers."""
    generated = [metric for metric in recipe.evaluate.metrics if metric != "loss"]
    longest = longest_answer(scanned, encoder)
    result.splits[scanned.split].longest_answer = longest
    limit = recipe.evaluate.max_new_tokens
    if generated and longest is not None and longest > limit:
        wanted = -(-longest // 16) * 16
        result.add(
            "warn", "evaluate.max_new_tokens",
            f"{limit} cuts generated answers short: the longest held-out answer has {longest:,} tokens; {wanted} lets all be written",
        )  # fmt: skip
    if "vqa_accuracy" in generated and not scanned.many_answers:
        result.add(
            "note", "evaluate.metrics", "vqa_accuracy is a vote of several accepted answers; with one a record, every match counts in full"
        )


def longest_answer(scanned: Scanned, encoder: Encoder) -> int | None:
    """Tokens of the longest last answer, its end included, among those with most characters; None where none can be encoded."""
    found = []
    for _, entry in scanned.answers:
        try:
            labels = encoder(conversation_at(scanned, entry)).labels
        except DataError:
            continue
        trained = (labels != IGNORED).nonzero()[:, 0].tolist()
        found.append(len([at for i, at in enumerate(trained) if at - i == trained[-1] - len(trained) + 1]))
    return max(found, default=None)
