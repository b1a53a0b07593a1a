"""Hub data sets through `datasets`, offline: repository layouts on disk, splits, media left undecoded, and what is said when absent."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest

from foveate.data.mixture import build_mixture
from foveate.data.sources.open import open_source
from foveate.errors import DataError
from tests.fixtures import schemas
from tests.unit.data.build import corner_picture, encoded, section


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository as the hub lays it out, and an own cache."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    pictures = [encoded(corner_picture(), "PNG")] * 10
    schemas.medpix(tmp_path / "repo/data/train-00000-of-00001.parquet", pictures)
    schemas.medpix(tmp_path / "repo/data/validation-00000-of-00001.parquet", pictures[:4])
    return tmp_path / "repo"


def test_rows_slices_and_undecoded_media(repository):
    source = open_source(section(hub=repository, split="train[20%:]"))
    assert len(source) == 8
    assert source[0]["question"] == "Which plane is shown in image 2?"
    assert set(source[0]["image_id"]) == {"bytes", "path"} and source[0]["image_id"]["bytes"].startswith(b"\x89PNG")
    again = pickle.loads(pickle.dumps(source))
    assert again[7] == source[7] and again.fingerprint() == source.fingerprint()
    assert source.fingerprint() != open_source(section(hub=repository, split="validation")).fingerprint()


def test_columns_map_a_hub_set_of_any_schema(repository):
    mixture = build_mixture(
        [section(hub=repository, split="validation", columns={"image": "image_id"})],
    )
    conversation = mixture.conversation(1)
    assert conversation.answers == ("Axial",) and len(conversation.media) == 1


def test_several_splits_and_an_unknown_one(repository):
    with pytest.raises(DataError, match=r"train \(10 rows\), validation \(4 rows\)") as caught:
        open_source(section(hub=repository))
    assert caught.value.reason == "bad_split"
    with pytest.raises(DataError, match="test") as caught:
        open_source(section(hub=repository, split="test"))
    assert caught.value.reason == "bad_split"


@pytest.mark.parametrize("fields", [{"use": "medpix"}, {"hub": "foveate-nobody/nothing", "revision": "abc123"}])
def test_offline_and_not_cached_names_the_repository_and_what_to_do(tmp_path, monkeypatch, fields):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(DataError) as caught:
        open_source(section(**fields, split="train"), offline=True)
    error = caught.value
    assert error.reason == "hub_offline"
    assert ("mmoukouba/MedPix-VQA" if "use" in fields else "foveate-nobody/nothing@abc123") in error.where
    assert "hf download" in error.fix and "path:" in error.fix


def test_a_repository_of_scripts_is_refused(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/old.py").write_text("raise SystemExit")
    with pytest.raises(DataError) as caught:
        open_source(section(hub=tmp_path / "old", split="train"))
    assert caught.value.reason in ("hub_failed", "hub_offline", "hub_missing", "bad_split")


OFFLINE = """
import http.server, os, sys, threading
asked = []
class Hub(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        self.send_response(404)
        self.end_headers()
    do_HEAD = do_POST = do_GET
    def log_message(self, *about): pass
hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=hub.serve_forever, daemon=True).start()
os.environ |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": sys.argv[1], "HF_HUB_DISABLE_TELEMETRY": "1"}
from foveate.config.data import SourceSection
from foveate.data.sources.open import open_source
from foveate.errors import DataError
for offline in (True, False):
    try:
        open_source(SourceSection(use="medpix", split="train"), offline=offline)
    except DataError as error:
        print(error.reason, len(asked) > 0)
"""


def test_offline_asks_no_hub_although_there_is_one(tmp_path):
    plain = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "HF_ENDPOINT")}
    done = subprocess.run([sys.executable, "-c", OFFLINE, str(tmp_path)], env=plain, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["hub_offline False", "hub_missing True"], done.stderr
