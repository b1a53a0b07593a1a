"""Measures the held-out conversations: teacher-forced loss, and answers by generation. Every rank takes its share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from foveate.batching.loader import StepData
from foveate.config.train import EvaluateSection
from foveate.dist.mesh import Ranks, all_reduce_sum, gather_objects
from foveate.encode.encoder import Encoder
from foveate.errors import DataError
from foveate.evaluate.generate import evaluating, generate_answers
from foveate.evaluate.metrics import aggregate, score
from foveate.evaluate.thumbnails import save_thumbnails
from foveate.events import EvalRow, Evaluated
from foveate.types import Conversation, kind_of

__all__ = ["HeldOut", "expected_answers", "save_thumbnails"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """The held-out set, checked once, in the order of the data."""

    conversations: Sequence[tuple[int, Conversation]]  # (index in the data, conversation), usable ones only; may be read anew each time
    section: EvaluateSection
    encoder: Encoder
    ranks: Ranks
    loss_batches: Callable[[], Iterable[StepData]]  # this rank's share of the same conversations
    loss_of: Callable[[nn.Module, StepData], float]  # model, step -> loss sum
    thumbnails: Callable[[int, Conversation], tuple[str, ...]]  # paths relative to the run folder
    synced: bool  # ranks must run generation in lock step (sharded weights)

    def evaluate(self, model: nn.Module, *, stage: str, step: int) -> Evaluated:
        """Metrics and answers; the same on every rank. Raises DataError where the loss has no trained token to be measured on."""
        started = time.perf_counter()
        with evaluating(model), torch.no_grad():
            metrics = {"loss": self._loss(model)} if "loss" in self.section.metrics else {}
            rows = self._rows(model) if self._generated else ()
        for metric in self._generated:
            metrics[metric] = aggregate(metric, [row.prediction for row in rows], [row.expected for row in rows])
        records, spent = len(self.conversations), time.perf_counter() - started
        return Evaluated(step=step, stage=stage, metrics=metrics, rows=rows, time_s=spent, records=records)

    @property
    def _generated(self) -> list[str]:
        return [metric for metric in self.section.metrics if metric != "loss"]

    def _loss(self, model: nn.Module) -> float:
        total = weight = 0.0
        for data in self.loss_batches():
            total += self.loss_of(model, data)
            weight += sum(batch.weight for batch in data.batches)
        total, weight = all_reduce_sum([total, weight])
        if not weight:  # 0 / 0 would look like the best of all losses
            raise DataError("no token of the held-out records has a label", reason="no_targets", where="data.eval", fix="give them answers")
        return total / weight

    def _rows(self, model: nn.Module) -> tuple[EvalRow, ...]:
        share = self._share()
        answers = generate_answers(
            model,
            self.encoder,
            _Chosen(self.conversations, share),
            max_new_tokens=self.section.max_new_tokens,
            batch_size=self.section.batch_size,
            device=self.ranks.device,
            synced=self.synced,
        )
        mine = dict(zip(share, answers, strict=True))
        merged = {place: answer for found in gather_objects(mine) for place, answer in found.items()}
        return tuple(self._row(place, index, c, merged[place]) for place, (index, c) in enumerate(self.conversations))

    def _share(self) -> list[int]:
        """The places in `conversations` that this rank answers.

        Sharded weights are gathered by all ranks together. Each must then generate equally often, and run the same towers each time:
        so every rank gets equally many conversations with the same kinds of media, the first of them again where one is short.
        """
        places, world, rank = range(len(self.conversations)), self.ranks.world, self.ranks.rank
        if not self.synced:
            return list(places[rank::world])
        groups: dict[tuple[str, ...], list[int]] = {}
        for place in places:
            _, conversation = self.conversations[place]
            groups.setdefault(tuple(sorted({kind_of(part) for part in conversation.media})), []).append(place)
        return [place for _, group in sorted(groups.items()) for place in (group + group[:1] * (-len(group) % world))[rank::world]]

    def _row(self, place: int, index: int, conversation: Conversation, prediction: str) -> EvalRow:
        called = conversation.messages[-1].tool_calls and conversation.answers in ((), (conversation.messages[-1].text,))
        expected = (self.encoder.written(conversation),) if called else expected_answers(conversation)
        question = next((m.text for m in reversed(conversation.messages) if m.role == "user"), "")
        return EvalRow(
            index=index,
            origin=conversation.origin,
            question=question,
            expected=expected,
            prediction=prediction,
            scores={metric: score(metric, prediction, expected) for metric in self._generated},
            media=self.thumbnails(index, conversation) if place < self.section.gallery and self.ranks.first else (),
        )


class _Chosen(Sequence[Conversation]):
    """Some of the conversations, each read when it is asked for: a large held-out set is never in memory at once."""

    def __init__(self, conversations: Sequence[tuple[int, Conversation]], places: Sequence[int]) -> None:
        self._conversations, self._places = conversations, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, i: int) -> Conversation:
        return self._conversations[self._places[i]][1]


def expected_answers(conversation: Conversation) -> tuple[str, ...]:
    """All accepted answers: the record's own list, else its last assistant turn."""
    if conversation.answers:
        return conversation.answers
    return (next(m.text for m in reversed(conversation.messages) if m.role == "assistant"),)
