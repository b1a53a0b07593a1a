"""`foveate plan`, and what the step log says of a run's speed."""

import json
import shlex

from foveate.report.run_files import read_lines
from tests.e2e.conftest import write_recipe, write_set


def test_plan_prints_a_table_and_settings_to_paste(work, model_dir, foveate):
    write_set(work, 12)
    recipe = write_recipe(work, model_dir)
    result = foveate("plan", recipe, "--gpu", "h200:2", "--gpu", "4090", "--price", "4090=0.3", "optim.name=sgd")
    assert result.code == 0, result.text
    assert "12 records" in result.out and "h200:2: 2 x 139.8 GiB, 989 TFLOP/s" in result.out and "0.3 USD" in result.out
    assert "assumed: 40% of that is reached" in result.out
    suggested = [line for line in result.out.splitlines() if line.startswith("suggested: foveate train")]
    assert len(suggested) == 2 and "optim.name=sgd" in suggested[0] and suggested[0].endswith("--nproc 2")
    words = suggested[1].split()[3:]
    assert foveate("check", *words, "--no-pictures").code == 0  # the overrides are a recipe's


def test_the_suggestion_is_quoted_for_a_shell(work, model_dir, foveate):
    write_set(work, 6)
    recipe = write_recipe(work, model_dir).rename(work / "my recipe.yaml")
    result = foveate("plan", recipe, "--gpu", "4090", "data.train=[{path: train.jsonl, limit: 4}]")
    (suggested,) = [line for line in result.out.splitlines() if line.startswith("suggested: ")]
    words = shlex.split(suggested)[3:]
    assert words[:2] == [str(recipe), "data.train=[{path: train.jsonl, limit: 4}]"]
    assert foveate("check", *words, "--no-pictures").code == 0


def test_plan_as_json_and_its_errors(work, model_dir, foveate):
    write_set(work, 6)
    recipe = write_recipe(work, model_dir)
    found = json.loads(foveate("plan", recipe, "--gpu", "cpu", "--mfu", "0.3", "--json").out)
    (machine,) = found["machines"]
    assert machine["mfu"] == 0.3 and machine["best"] in machine["settings"] and found["step_flops"] > 0
    for arguments, words in [
        ((), "names no machine"),
        (("--gpu", "h2000"), "did you mean h200?"),
        (("--gpu", "h200", "--price", "h200=much"), "is no price"),
        (("--gpu", "h200", "--price", "h200=-1"), "is no price"),
        (("--gpu", "h200", "--price", "h200=nan"), "is no price"),
        (("--gpu", "h200", "--price", "h2000=1"), "did you mean h200?"),
        (("--gpu", "h200", "--price", "l4=1"), "prices a card that is not planned for"),
        (("--gpu", "h200", "batch.size=none"), "batch.size"),
    ]:
        wrong = foveate("plan", recipe, *arguments)
        assert wrong.code == 2 and words in wrong.err and "Traceback" not in wrong.err, wrong.text
    assert "dense bf16" in foveate("plan", recipe, "--list").out


def test_a_step_s_line_says_what_it_computed_and_how_fast(work, model_dir, foveate):
    write_set(work, 8)
    result = foveate("train", write_recipe(work, model_dir, train={"steps": 2, "output": "run"}))
    assert result.code == 0, result.text
    lines = [line for line in read_lines(work / "run" / "metrics.jsonl") if line["event"] == "step"]
    for line in lines:
        assert line["flops"] > 1e6 and line["padding"] == 0 and line["data_wait_s"] >= 0
        assert line["flops_per_s"] > 0 and line["samples_per_s"] > 0 and 0 < line["mfu"] < 2
    assert "MFU" in result.err and "speed: " in result.out and "of the time waiting for data" in result.out
    assert "MFU" in (work / "run" / "report.html").read_text()
