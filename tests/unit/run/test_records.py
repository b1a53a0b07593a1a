"""One pass over a split: the verdicts of training, the same from any number of processes."""

from __future__ import annotations

import numpy as np
import pytest

from foveate.batching.rows import Lengths, bits_of, kinds_of
from foveate.config.data import DataSection, SourceSection
from foveate.config.model import ModelSection
from foveate.config.recipe import Recipe
from foveate.run.accounts import verdict
from foveate.run.checks.findings import Checked, SplitCheck
from foveate.run.checks.leakage import note_duplicates
from foveate.run.checks.records import BAD, UNKNOWN, USABLE, Scanned, scan_split
from foveate.run.checks.tokens import rows_of, sum_up, token_counts
from foveate.run.prepare import Prepared, prepare
from tests.unit.data.build import corner_picture, encoded, jsonl, noise_picture

COUNT = 150


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Prepared:
    """150 good records with 12 pictures, among them one of each fault; two records and two ids are there twice."""
    folder = tmp_path_factory.mktemp("records")
    for number in range(12):
        (folder / f"{number}.png").write_bytes(encoded(corner_picture(40 + number, 40), "PNG"))
    cut = encoded(noise_picture(), "JPEG")
    (folder / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    (folder / "odd.jpg").write_bytes(encoded(corner_picture(), "PNG"))
    rows = [
        {"id": f"r{number}", "image": f"{number % 12}.png", "question": f"what is {number}?", "answer": "word " * (number % 7 + 1)}
        for number in range(COUNT)
    ]
    rows[20]["image"] = "none.png"
    rows[40]["answer"] = ""
    rows[60]["image"] = "cut.jpg"
    rows[80]["question"] = "long " * 400
    rows[100]["image"] = "odd.jpg"
    rows[120] = dict(rows[119], id="r120")  # the same but for its id
    rows[130]["id"] = "r131"
    path = jsonl(folder / "train.jsonl", rows)
    recipe = Recipe(model=ModelSection(), data=DataSection(train=[SourceSection(path=str(path))]), batch={"max_tokens": 512, "size": 8})
    return prepare(recipe, allow_code=False)


def scanned(prepared: Prepared, *, decode: bool = False, workers: int = 1) -> Scanned:
    return scan_split(
        prepared.train,
        "train",
        encoder=prepared.encoder,
        max_tokens=prepared.recipe.batch.max_tokens,
        rules=prepared.recipe.media,
        decode=decode,
        pictures=True,
        workers=workers,
        progress=lambda done, total: None,
    )


@pytest.fixture(scope="module")
def serial(prepared) -> Scanned:
    return scanned(prepared)


def test_any_number_of_processes_finds_the_same(prepared, serial):
    parallel = scanned(prepared, workers=3)
    for name in ("verdicts", "tokens", "keys", "ids", "media", "places", "sources"):
        assert np.array_equal(getattr(serial, name), getattr(parallel, name)), name
    for name in ("bad", "kinds", "answers", "wrong_suffix", "encoded", "encoded_tokens", "supervised_tokens", "undecoded"):
        assert getattr(serial, name) == getattr(parallel, name), name


@pytest.mark.parametrize("decode", [False, True])
def test_a_record_gets_the_verdict_that_training_gives_it(prepared, serial, decode):
    found = scanned(prepared, decode=True) if decode else serial
    reasons = {entry: line.reason for entry, line in found.bad}
    errors = {slot: verdict(prepared, prepared.train, slot, decode=decode).error for slot in range(COUNT)}
    trained = {slot: error.reason for slot, error in errors.items() if error}
    if not decode:
        # Records that are encoded in full are as good as decoded; training meets the same there.
        reasons.pop(60, None)
    assert reasons == trained
    assert set(trained) == {20, 40, 80} | ({60} if decode else set())
    assert [int(entry) for entry in np.flatnonzero(found.verdicts == BAD)] == sorted(entry for entry, _ in found.bad)


def test_lengths_are_exact_and_those_of_too_long_records_are_kept(prepared, serial):
    usable = np.flatnonzero(serial.verdicts == USABLE)
    for entry in usable[::25]:
        example = prepared.encoder(prepared.train.conversation(int(serial.places[entry])))
        assert serial.tokens[entry] == len(example.input_ids)
    assert serial.tokens[80] > 512 and serial.tokens[20] == UNKNOWN
    assert serial.wrong_suffix == 1
    assert serial.kinds[0, "image"] == len(usable)


def test_memory_is_bounded(serial):
    held = sum(
        array.nbytes for array in (serial.verdicts, serial.tokens, serial.keys, serial.ids, serial.media, serial.places, serial.sources)
    )
    assert held <= 72 * COUNT


def test_records_and_ids_that_are_there_twice(serial):
    result = Checked(splits={"train": SplitCheck()})
    note_duplicates(result, serial)
    found = result.splits["train"]
    assert (found.duplicates, found.duplicate_ids) == (1, 1)
    texts = [finding.text for finding in result.findings if finding.state == "warn"]
    assert "row 120 equals" in texts[0] and "row 119" in texts[0]
    assert "row 131 and" in texts[1] and "row 130" in texts[1]


def test_sums_of_sources_and_rows(prepared, serial):
    result = Checked(splits={"train": SplitCheck()})
    sum_up(result, prepared.recipe, serial, prepared.encoder, packs=True)
    found = result.splits["train"]
    source = found.sources[0]
    assert (source.read, source.bad, source.unchecked) == (COUNT, len(serial.bad), 0)
    assert source.usable == COUNT - len(serial.bad) == source.images
    assert found.tokens.too_long == 1 and found.tokens.fits_all >= found.tokens.longest > 512
    assert found.rows.fullest <= 512 and 0 < found.rows.fill <= 1
    assert source.max_pixels is None  # its text alone is too long
    assert any("do not fit batch.max_tokens = 512" in finding.text for finding in result.findings if finding.state == "warn")


def test_token_counts():
    tokens = np.array([10] * 990 + [50] * 9 + [700] + [UNKNOWN] * 5)
    found = token_counts(tokens, 512)
    assert (found.records, found.p50, found.p95, found.p99, found.longest, found.too_long) == (1000, 10, 10, 10, 700, 1)
    assert (found.fits_all, found.fits_most) == (704, 64)
    assert sum(bar.records for bar in found.histogram) == 1000 and found.histogram[0].low == 10 and found.histogram[-1].high == 700
    assert len(found.histogram) <= 12
    assert token_counts(np.array([UNKNOWN]), 512) is None
    assert [(bar.low, bar.high) for bar in token_counts(np.array([7, 7]), 512).histogram] == [(7, 7)]


@pytest.mark.parametrize("packs", [True, False])
def test_rows_never_pass_the_budget(prepared, packs):
    lengths = Lengths.empty(32)
    lengths.tokens[:] = [100, 200, 300, 400] * 8
    rows = rows_of(prepared.recipe, lengths, packs=packs)
    assert rows.fullest <= 512 and rows.per_step >= 8 * 250 / 512
    assert rows.steps == 4


def test_conversations_that_go_alone_have_rows_of_their_own(prepared):
    lengths = Lengths.empty(32)
    lengths.tokens[:] = 50
    lengths.kinds[::2] = bits_of(frozenset({"audio"}))
    mixed = rows_of(prepared.recipe, lengths, packs=True)
    apart = rows_of(prepared.recipe, lengths, packs=True, alone=frozenset({"audio"}))
    assert mixed.per_step == 1 and apart.per_step > 16 / 4  # a row for each sound, one for the rest of a step
    assert kinds_of(bits_of(frozenset({"audio", "image"}))) == {"audio", "image"}
