"""Measures the held-out conversations: teacher-forced loss, and answers by generation. Every rank takes its share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from foveate.batching.loader import StepData
from foveate.config.train import EvaluateSection
from foveate.dist.mesh import Ranks, all_reduce_sum, gather_objects
from foveate.encode.encoder import Encoder
from foveate.evaluate.generate import evaluating, generate_answers
from foveate.evaluate.metrics import aggregate, score
from foveate.evaluate.thumbnails import save_thumbnails
from foveate.events import EvalRow, Evaluated
from foveate.types import Conversation

__all__ = ["HeldOut", "expected_answers", "save_thumbnails"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOut:
    """The held-out set, checked once, in the order of the data."""

    conversations: Sequence[tuple[int, Conversation]]  # (index in the data, conversation), usable ones only
    section: EvaluateSection
    encoder: Encoder
    ranks: Ranks
    loss_batches: Callable[[], Sequence[StepData]]  # this rank's share of the same conversations
    loss_of: Callable[[nn.Module, StepData], float]  # model, step -> loss sum
    thumbnails: Callable[[int, Conversation], tuple[str, ...]]  # paths relative to the run folder
    synced: bool  # ranks must run generation in lock step (sharded weights)

    def evaluate(self, model: nn.Module, *, stage: str, step: int) -> Evaluated:
        """Metrics and answers; the same on every rank."""
        started = time.perf_counter()
        with evaluating(model), torch.no_grad():
            metrics = {"loss": self._loss(model)} if "loss" in self.section.metrics else {}
            rows = self._rows(model) if self._generated else ()
        for metric in self._generated:
            metrics[metric] = aggregate(metric, [row.prediction for row in rows], [row.expected for row in rows])
        return Evaluated(step=step, stage=stage, metrics=metrics, rows=rows, time_s=time.perf_counter() - started)

    @property
    def _generated(self) -> list[str]:
        return [metric for metric in self.section.metrics if metric != "loss"]

    def _loss(self, model: nn.Module) -> float:
        total = targets = 0.0
        for data in self.loss_batches():
            total += self.loss_of(model, data)
            targets += sum(batch.num_targets for batch in data.batches)
        total, targets = all_reduce_sum([total, targets])
        return total / max(1.0, targets)

    def _rows(self, model: nn.Module) -> tuple[EvalRow, ...]:
        world, rank = self.ranks.world, self.ranks.rank
        share = list(self.conversations)[rank::world]
        if self.synced:  # sharded weights are gathered by all ranks together, so each must generate equally often
            share += list(self.conversations)[:1] * (-(-len(self.conversations) // world) - len(share))
        answers = generate_answers(
            model,
            self.encoder,
            [conversation for _, conversation in share],
            max_new_tokens=self.section.max_new_tokens,
            batch_size=self.section.batch_size,
            device=self.ranks.device,
            synced=self.synced,
        )
        mine = {index: answer for (index, _), answer in zip(share, answers, strict=True)}
        merged = {index: answer for found in gather_objects(mine) for index, answer in found.items()}
        return tuple(self._row(place, index, c, merged[index]) for place, (index, c) in enumerate(self.conversations))

    def _row(self, place: int, index: int, conversation: Conversation, prediction: str) -> EvalRow:
        expected = expected_answers(conversation)
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


def expected_answers(conversation: Conversation) -> tuple[str, ...]:
    """All accepted answers: the record's own list, else its last assistant turn."""
    if conversation.answers:
        return conversation.answers
    return (next(m.text for m in reversed(conversation.messages) if m.role == "assistant"),)
