"""Records are shared out to processes; a process that dies names its record, and nothing is left running."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from foveate.errors import DataError
from foveate.machine import cores
from foveate.run.pool import Killed, in_chunks


def squares(places: range, mark) -> list[tuple[int, int]]:
    found = []
    for place in places:
        mark(place)
        found.append((place * place, os.getpid()))
    return found


def killed_at_13(places: range, mark) -> list[int]:
    for place in places:
        mark(place)
        if place == 13:
            os.kill(os.getpid(), signal.SIGKILL)
    return list(places)


def refused_at_13(places: range, mark) -> list[int]:
    if 13 in places:
        raise DataError("no", reason="bad_json", where="a.jsonl row 13", fix="mend it")
    return list(places)


def broken_at_13(places: range, mark) -> list[int]:
    for place in places:
        mark(place)
        1 / (place - 13)
    return list(places)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_chunk_comes_once_whatever_the_number_of_processes(workers):
    found = {places.start: part for places, part in in_chunks(squares, 50, chunk=7, workers=workers)}
    assert sorted(found) == list(range(0, 50, 7))
    assert [value for start in sorted(found) for value, _ in found[start]] == [i * i for i in range(50)]
    processes = {process for part in found.values() for _, process in part}
    assert processes == {os.getpid()} if workers == 1 else os.getpid() not in processes
    assert multiprocessing.active_children() == []


def test_nothing_to_do():
    assert list(in_chunks(squares, 0, chunk=7, workers=2)) == []


def test_a_killed_process_names_the_record_that_it_was_at():
    with pytest.raises(Killed) as error:
        list(in_chunks(killed_at_13, 50, chunk=4, workers=2))
    assert error.value.place == 13 and "SIGKILL" in str(error.value) and "memory" in error.value.fix
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_the_user_reach_the_caller(workers):
    with pytest.raises(DataError, match="a.jsonl row 13: no; mend it"):
        list(in_chunks(refused_at_13, 50, chunk=4, workers=workers))
    assert multiprocessing.active_children() == []


def test_a_bug_is_not_taken_for_a_killed_process(capfd):
    with pytest.raises(RuntimeError, match="failed at place 13"):
        list(in_chunks(broken_at_13, 50, chunk=4, workers=2))
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_stopping_early_leaves_no_process():
    chunks = in_chunks(squares, 1000, chunk=4, workers=2)
    next(chunks)
    chunks.close()
    assert multiprocessing.active_children() == []


def test_there_is_a_core():
    assert cores() >= 1
