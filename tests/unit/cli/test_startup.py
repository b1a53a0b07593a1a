"""The garbage collector while a process starts, and after."""

from __future__ import annotations

import gc

from foveate import startup


def test_the_collector_looks_seldom_until_the_libraries_are_there():
    usual = gc.get_threshold()
    try:
        startup.begin()
        startup.begin()  # once is enough
        assert gc.isenabled() and gc.get_threshold()[0] > usual[0]
        startup.done()
        assert gc.get_threshold() == usual and gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()


def test_a_process_that_is_not_foveate_s_own_is_left_alone():
    usual, frozen = gc.get_threshold(), gc.get_freeze_count()
    startup.done()
    assert (gc.get_threshold(), gc.get_freeze_count()) == (usual, frozen)
