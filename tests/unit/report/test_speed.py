"""A run's speed, from the lines of its steps."""

from foveate.report.speed import Speed


def line(**changes) -> dict:
    return {"tokens": 1000, "samples": 10, "flops": 4e12, "mfu": 0.4, "time_s": 2.0, "data_wait_s": 0.1} | changes


def test_rates_are_means_over_time():
    found = Speed.of([line(), line(time_s=6.0, tokens=1000, mfu=0.2)])
    assert (found.tokens, found.samples, found.flops) == (250, 2.5, 1e12)
    assert found.mfu == (0.4 * 2 + 0.2 * 6) / 8 and found.waiting == 0.2 / 8
    assert str(found) == "250 useful tokens/s, 2.5 samples/s, 1 TFLOP/s (MFU 25%), 2.5% of the time waiting for data"


def test_what_some_step_does_not_tell_is_not_told():
    older = {key: value for key, value in line().items() if key not in ("flops", "mfu")}
    found = Speed.of([line(), older])
    assert found.flops is found.mfu is None and "FLOP" not in str(found)
    assert Speed.of([]) is None
