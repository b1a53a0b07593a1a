"""A bounded folder of tensors that several processes write and read, and that may lose anything at any time."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import torch

from foveate.data.store import Store

TENSORS = {"a/": torch.arange(6.0).view(2, 3), "b/0/": torch.ones(2, dtype=torch.bfloat16), "c/": torch.tensor([True, False])}


def key(number: int) -> str:
    return f"{number:064x}"


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.tensors"))


def filled(folder: Path, count: int, *, limit_bytes: int) -> Store:
    store = Store(folder, limit_bytes=limit_bytes)
    for number in range(count):
        store.save(key(number), {"x": torch.full((250,), float(number))})
    return store


def test_what_was_saved_is_loaded_bit_for_bit_by_another_process_object(tmp_path: Path) -> None:
    store = Store(tmp_path / "new", limit_bytes=10_000_000)
    assert store.load(key(1)) is None
    store.save(key(1), TENSORS)
    found = pickle.loads(pickle.dumps(store)).load(key(1))
    assert found.keys() == TENSORS.keys()
    assert all(found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert store.counts.written == 1
    assert store.counts.written_bytes == files(tmp_path)[0].stat().st_size


def test_every_flipped_byte_and_every_torn_file_is_a_miss(tmp_path: Path) -> None:
    store = Store(tmp_path, limit_bytes=10_000_000)
    store.save(key(1), {"x": torch.arange(4.0)})
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.load(key(1)) is None, place
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert store.load(key(1)) is None, length
    path.write_bytes(whole)
    assert store.load(key(1)) is not None


def test_the_limit_is_kept_and_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = filled(tmp_path, 4, limit_bytes=20_000)
    for age, path in enumerate(reversed(files(tmp_path))):
        os.utime(path, (1_000_000 + age, 1_000_000 + age))
    assert store.load(key(3)) is not None  # the oldest until now
    first = None
    for number in range(4, 40):
        store.save(key(number), {"x": torch.zeros(250)})
        assert store.used_bytes() <= 20_000
        if store.counts.evicted and first is None:
            first = {path.stem for path in files(tmp_path)}
    assert key(3) in first
    assert key(2) not in first
    assert store.counts.evicted == 40 - len(files(tmp_path))
    assert len(files(tmp_path)) >= 12  # room is used


def test_a_file_too_large_for_the_limit_is_not_kept(tmp_path: Path) -> None:
    store = filled(tmp_path, 5, limit_bytes=20_000)
    store.save(key(9), {"x": torch.zeros(2_000)})
    assert store.load(key(9)) is None
    assert store.load(key(0)) is not None
    assert store.counts.kept().endswith(", 0 evicted, 1 too large for media.cache_gb")


WRITER = """
import sys, torch
from pathlib import Path
from foveate.data.store import Store
store = Store(Path(sys.argv[1]), limit_bytes=400_000, writers=3)
for number in range(400):
    store.save(f"{int(sys.argv[2]) * 1000 + number:064x}", {"x": torch.full((500,), float(number))})
    if number % 20 == 0:
        print(store.used_bytes(), flush=True)
print("failure", store.failure)
"""


def started(folder: Path, number: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(folder), str(number)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


def test_three_processes_write_at_once_and_keep_the_limit(tmp_path: Path) -> None:
    writers = [started(tmp_path, number) for number in range(3)]
    for writer in writers:
        out, _ = writer.communicate(timeout=60)
        *used, last = out.splitlines()
        assert last.strip() == "failure"
        assert max(map(int, used)) <= 400_000
    reader = Store(tmp_path, limit_bytes=400_000)
    assert reader.used_bytes() <= 400_000
    for path in files(tmp_path):
        assert float(reader.load(path.stem)["x"][0]) == int(path.stem, 16) % 1000


def test_a_writer_killed_at_any_moment_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    writer = started(tmp_path, 7)
    assert writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    store = Store(tmp_path, limit_bytes=400_000)
    for path in files(tmp_path):
        assert store.load(path.stem) is not None
    aside = tmp_path / "00" / ".part-left"
    aside.parent.mkdir(exist_ok=True)
    aside.write_bytes(b"half")
    os.utime(aside, (1_000_000, 1_000_000))
    store.save(key(1), {"x": torch.zeros(3)})  # the lock went with the process
    assert store.load(key(1)) is not None
    assert not aside.exists()


def test_on_a_full_disk_it_stops_writing_and_says_why(tmp_path: Path) -> None:
    store = Store(tmp_path, limit_bytes=10_000_000)
    store.save(key(1), TENSORS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        store.save(key(2), {"x": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert store.failure
    assert not list(tmp_path.rglob(".part-*"))
    store.save(key(3), TENSORS)
    assert store.load(key(1)) is not None
    assert store.load(key(3)) is None
