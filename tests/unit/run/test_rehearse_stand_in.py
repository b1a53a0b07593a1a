"""What stands in for a recipe's model, and the child processes of a rehearsal."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from foveate.config.model import ModelSection
from foveate.errors import FoveateError, ModelError
from foveate.model.load import load_config, load_model, load_processor
from foveate.run.rehearsal.children import Ended, cause, run_child
from foveate.run.rehearsal.stand_in import make_stand_in
from foveate.run.rehearse import require_blocks, require_measured
from tests import families
from tests.policy.source import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A model folder in half precision, with a generation configuration of its own and files that are none of its business."""
    folder = tmp_path_factory.mktemp("real")
    families.save("smolvlm", folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "bfloat16"
    config["text_config"] |= dict(
        num_hidden_layers=30, hidden_size=512, num_attention_heads=8, num_key_value_heads=4, intermediate_size=2048
    )
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"max_new_tokens": 77}')
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "notes.bin").write_bytes(b"weights")
    return folder


def test_a_local_model_is_made_tiny_beside_its_own_processor(real, tmp_path):
    stand_in = make_stand_in(ModelSection(id=str(real)), tmp_path / "tiny")
    assert (stand_in.own, stand_in.family) == (True, "smolvlm")
    for name in ("tokenizer.json", "processor_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "tiny" / name).read_bytes() == (real / name).read_bytes()
    assert not (tmp_path / "tiny/notes.bin").exists() and not (tmp_path / "tiny/model.safetensors.index.json").exists()
    section = ModelSection(id=str(tmp_path / "tiny"))
    assert load_config(section).text_config.num_hidden_layers == 2
    model = load_model(section)
    assert model.dtype == torch.bfloat16  # as `model.dtype: auto` would load the real one
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000


def test_the_same_model_has_the_same_random_weights(real, tmp_path):
    states = [
        load_model(ModelSection(id=str(make_stand_in(ModelSection(id=str(real)), tmp_path / name).folder))).state_dict() for name in "ab"
    ]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_hub_model_is_taken_from_the_local_cache(real, tmp_path, monkeypatch):
    home = tmp_path / "hub"
    snapshot = home / "models--somebody--mine/snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(real, snapshot)
    (home / "models--somebody--mine/refs").mkdir()
    (home / "models--somebody--mine/refs/main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home))
    stand_in = make_stand_in(ModelSection(id="somebody/mine"), tmp_path / "tiny")
    assert (stand_in.own, stand_in.family) == (True, "smolvlm")
    (snapshot / "processor_config.json").unlink()
    (snapshot / "tokenizer.json").unlink()
    half = make_stand_in(ModelSection(id="somebody/mine"), tmp_path / "built")
    assert (half.own, half.family) == (False, "smolvlm")
    assert "its processor is not in the local cache" in half.said


def test_what_a_local_folder_lacks_is_said_and_nothing_is_built_in_its_place(real, tmp_path):
    shutil.copytree(real, tmp_path / "model")
    (tmp_path / "model/tokenizer.json").unlink()
    (tmp_path / "model/processor_config.json").unlink()
    with pytest.raises(ModelError, match="processor") as caught:
        make_stand_in(ModelSection(id=str(tmp_path / "model")), tmp_path / "tiny")
    assert caught.value.where == str(tmp_path / "model")
    (tmp_path / "model/config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        make_stand_in(ModelSection(id=str(tmp_path / "model")), tmp_path / "tiny")
    with pytest.raises(ModelError, match="no such model folder"):
        make_stand_in(ModelSection(id=str(tmp_path / "gone")), tmp_path / "tiny")


def test_an_id_without_a_slash_is_spoken_of_as_a_folder_too(tmp_path):
    for look in (lambda section: make_stand_in(section, tmp_path / "tiny"), load_config):
        with pytest.raises(ModelError, match="no folder 'basee' is beside the recipe"):
            look(ModelSection(id="basee", offline=True))
    with pytest.raises(ModelError) as caught:
        load_config(ModelSection(id="org/basee", offline=True))
    assert "beside the recipe" not in str(caught.value)


def test_a_configuration_that_no_way_fits_is_replaced_by_the_family_and_the_reason_said(real, tmp_path):
    shutil.copytree(real, tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    config["scale_factor"] = 3  # no multiple of what the processor makes
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    stand_in = make_stand_in(ModelSection(id=str(tmp_path / "model")), tmp_path / "tiny")
    assert (stand_in.own, stand_in.family) == (False, "smolvlm")
    assert "can't be made tiny" in stand_in.said and stand_in.notes
    assert load_processor(ModelSection(id=str(stand_in.folder))).chat_template


def test_a_family_can_be_named_and_an_unknown_one_has_near_names(tmp_path):
    stand_in = make_stand_in(ModelSection(id="somebody/mine"), tmp_path / "tiny", family="gemma3")
    assert load_config(ModelSection(id=str(stand_in.folder))).model_type == "gemma3"
    with pytest.raises(ModelError, match="did you mean gemma3"):
        make_stand_in(ModelSection(id="somebody/mine"), tmp_path / "other", family="gema3")


def test_a_childs_error_is_its_own_words():
    said = "note: something\nstep 1/6\nerror: batch.size: is 0; make it 1\n(rank 1 of 2)\n"
    assert cause(Ended(code=2, said=said)) == "batch.size: is 0; make it 1\n(rank 1 of 2)"
    assert cause(Ended(code=1, said="Traceback ...\nValueError: no\n")).endswith("ValueError: no")
    assert cause(Ended(code=-signal.SIGKILL, said="step 1\n")).startswith("killed by SIGKILL")


def test_a_child_is_gone_when_watching_it_fails(tmp_path):
    seen = []

    def watch(child):
        seen.append(child)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(["doctor"], tmp_path / "log", watch=watch)
    assert seen[0].returncode is not None


def test_a_child_speaks_into_its_log_and_its_code_comes_back(tmp_path):
    ended = run_child(["train", str(tmp_path / "gone.yaml")], tmp_path / "log")
    assert ended.code == 2
    assert "gone.yaml" in cause(ended)
    assert (tmp_path / "log").read_text() == ended.said


def test_a_model_without_blocks_to_shard_is_refused():
    with pytest.raises(ModelError, match="no repeated blocks") as caught:
        require_blocks(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert "ddp" in caught.value.fix
    require_blocks(families.build("smolvlm")[0])


@pytest.mark.parametrize("metrics", [{"loss": 1.0}, {"loss": 1.0, "wer": float("nan")}])
def test_a_metric_that_could_not_be_measured_is_named_with_its_step(metrics):
    lines = [{"event": "eval", "step": 0, "metrics": {"loss": 2.0, "wer": 1.0}}, {"event": "eval", "step": 2, "metrics": metrics}]
    with pytest.raises(FoveateError, match="evaluation at step 2: wer could not be measured"):
        require_measured(lines, ["loss", "wer"])
    require_measured(lines[:1], ["loss", "wer"])


def test_a_package_that_the_model_needs_is_missed_here_as_training_would_miss_it(tmp_path):
    """A built model of the family would not do: it may be made of another tower, and training ends on the first line."""
    families.save("fast_vlm", tmp_path / "real")
    call = (
        "import sys; sys.modules['timm'] = None\n"
        "from pathlib import Path\n"
        "from foveate.config.model import ModelSection\n"
        "from foveate.errors import ModelError\n"
        "from foveate.model.load import prepare_transformers\n"
        "from foveate.run.rehearsal.stand_in import make_stand_in\n"
        "prepare_transformers()\n"
        f"try: print(make_stand_in(ModelSection(id={str(tmp_path / 'real')!r}), Path({str(tmp_path / 'tiny')!r})))\n"
        "except ModelError as error: print('refused', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, text=True, capture_output=True)
    assert done.stdout.startswith("refused") and "timm" in done.stdout, done.stdout + done.stderr
