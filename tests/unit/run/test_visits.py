"""The books of visited records: as exact as a set of them, and no bigger than a bit a record."""

from __future__ import annotations

import random

import pytest

from foveate.batching.plan import Plan
from foveate.data.mixture import Mixture, build_mixture
from foveate.run.visits import Visits, Without
from foveate.types import Origin
from tests.unit.data.build import jsonl, qa_rows, section


def mixture_of(folder, *weights: float) -> Mixture:
    sections = []
    for number, weight in enumerate(weights):
        path = folder / f"{number}.jsonl"
        if not path.exists():
            jsonl(path, qa_rows(7 + 4 * number))
        sections.append(section(path=path, weight=weight))
    return build_mixture(sections)


def by_sets(mixture: Mixture, plan: Plan, step: int, reasons: dict[Origin, str]) -> tuple[int, int]:
    """Records read and bad ones among them, counted plainly."""
    visited = {mixture.locate(slot): mixture.origin(slot) for k in range(min(step, plan.total_steps)) for slot in plan.step(k)}
    return len(visited), sum(origin in reasons for origin in visited.values())


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 1.0), (0.5,), (2.0, 0.3), (2.5, 1.0)])
@pytest.mark.parametrize("bad_share", [0.0, 0.3])
def test_it_counts_as_sets_do_at_every_step(tmp_path, weights, bad_share):
    mixture = mixture_of(tmp_path, *weights)
    draw = random.Random(0)
    reasons = {mixture.origin(slot): "image_missing" for slot in mixture.distinct() if draw.random() < bad_share}
    plan = Plan(records=len(mixture), size=3, seed=1, epochs=2.3)
    visits = Visits(mixture, plan)
    for step in range(plan.total_steps + 1):
        visits.enter(step, reasons)
        resumed = Visits(mixture, plan)  # a process that begins here
        resumed.enter(step, reasons)
        for found in (visits, resumed):
            assert (found.read(step), len(found.bad)) == by_sets(mixture, plan, step, reasons), step
    assert visits.read(plan.total_steps) == mixture.records and set(visits.bad.values()) <= {"image_missing"}


def test_a_record_that_turns_bad_at_its_second_visit_is_bad(tmp_path):
    mixture = mixture_of(tmp_path, 1.0)
    plan = Plan(records=7, size=7, seed=0, epochs=2)
    visits = Visits(mixture, plan)
    visits.enter(1, {})
    visits.enter(2, {mixture.origin(3): "image_missing"})
    assert visits.read(2) == 7 and visits.bad == {(0, 3): "image_missing"}


def test_the_same_file_twice_is_two_records(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", qa_rows(5))
    mixture = build_mixture([section(path=path, system="one"), section(path=path, system="two")])
    visits = Visits(mixture, Plan(records=10, size=10, seed=0))
    visits.enter(1, {mixture.origin(2): "empty_answer"})
    assert visits.read(1) == 10 == mixture.records and len(visits.bad) == 2


@pytest.mark.parametrize("left", [[], [0], [9], [0, 1, 2], [3, 5, 9], list(range(10))])
def test_numbers_without_some(left):
    found = Without(10, left)
    assert list(found) == [number for number in range(10) if number not in left] and len(found) == 10 - len(left)
    with pytest.raises(IndexError):
        found[len(found)]
