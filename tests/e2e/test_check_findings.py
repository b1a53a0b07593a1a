"""What `foveate check` finds, on real files: lengths, copies, leakage, predictions, the machine; and how it ends."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from pydantic import TypeAdapter

from foveate.run.checks.findings import Checked
from foveate.run.checks.report import report_schema
from tests import families
from tests.e2e.conftest import picture, start, write_jsonl, write_recipe, write_set
from tests.unit.data.test_likeness import scene

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def qwen_dir(tmp_path_factory) -> Path:
    """A tiny Qwen2.5-VL, whose images cost tokens by their size."""
    return families.save("qwen2_5_vl", tmp_path_factory.mktemp("model") / "qwen")


def check(foveate, recipe: Path, *options: str, code: int = 0) -> dict:
    result = foveate("check", recipe, "--json", *options)
    assert result.code == code, result.text
    return json.loads(result.out)


def texts(found: dict, state: str, about: str = "") -> list[str]:
    return [line["text"] for line in found["findings"] if line["state"] == state and line["about"].startswith(about)]


def write_scenes(folder: Path, name: str, numbers, save) -> None:
    (folder / "images").mkdir(exist_ok=True)
    rows = []
    for number in numbers:
        file = f"images/{name}-{number}.jpg"
        save(scene(number), folder / file)
        rows.append({"image": file, "question": f"{name} {number}?", "answer": "a scene"})
    write_jsonl(folder / f"{name}.jsonl", rows)


def test_parallel_finds_what_serial_finds(work, model_dir, foveate):
    write_set(work, 150)
    rows = [json.loads(line) for line in (work / "train.jsonl").read_text().splitlines()]
    rows[3]["image"], rows[70]["answer"], rows[140]["question"] = "images/none.png", "", "long " * 300
    write_jsonl(work / "train.jsonl", rows)
    recipe = write_recipe(work, model_dir)
    found = [check(foveate, recipe, "--workers", str(workers), code=2) for workers in (1, 3)]
    for one in found:
        del one["prediction"]["flops_per_s"], one["prediction"]["least_time_s"]
        one["findings"] = [line for line in one["findings"] if line["about"] != "time" and "are free" not in line["text"]]
    assert found[0] == found[1]
    train = found[0]["splits"]["train"]
    assert train["reasons"] == {"image_missing": 1, "empty_answer": 1, "too_long": 1}
    assert [line["origin"]["row"] for line in train["bad"]] == [3, 70, 140]


def test_copies_of_training_pictures_are_found_and_other_pictures_are_not(work, model_dir, foveate):
    write_scenes(work, "train", range(12), lambda image, path: image.save(path, quality=90))
    write_scenes(work, "eval", range(9, 15), lambda image, path: image.resize((200, 150)).save(path, quality=50))
    os.link(work / "images/train-2.jpg", work / "images/linked.jpg")
    with (work / "eval.jsonl").open("a") as lines:
        lines.write(json.dumps({"image": "images/linked.jpg", "question": "another?", "answer": "yes"}) + "\n")
    blank = Image.new("RGB", (300, 200), "white")
    for name, colour in (("train", (255, 255, 255)), ("eval", (254, 254, 254))):
        blank.paste(colour, (0, 0, 300, 200))
        blank.save(work / f"images/{name}-blank.png")
        with (work / f"{name}.jsonl").open("a") as lines:
            lines.write(json.dumps({"image": f"images/{name}-blank.png", "question": f"{name}?", "answer": "nothing"}) + "\n")
    recipe = write_recipe(work, model_dir, data={"eval": [{"path": "eval.jsonl"}]}, batch={"max_tokens": 512})
    leakage = check(foveate, recipe)["leakage"]
    assert (leakage["compared"], leakage["same"], leakage["same_media"], leakage["near_images"]) == (8, 0, 1, 3)
    pairs = [(Path(pair["eval"]).name, Path(pair["train"]).name) for pair in leakage["examples"]["near_images"]]
    assert pairs == [(f"eval.jsonl row {row}", f"train.jsonl row {row + 9}") for row in range(3)]
    assert check(foveate, recipe, "--no-pictures")["leakage"]["near_images"] is None
    assert foveate("check", recipe).code == 0  # warnings alone do not fail it
    assert foveate("check", recipe, "--strict").code == 2


def test_suggested_budgets_and_image_sizes_hold(work, qwen_dir, foveate):
    (work / "images").mkdir()
    sizes = [(28, 28)] * 20 + [(112, 112)] * 2
    rows = []
    for number, size in enumerate(sizes):
        picture("red", size).save(work / f"images/{number}.png")
        rows.append({"image": f"images/{number}.png", "question": f"{number}?", "answer": "red"})
    write_jsonl(work / "train.jsonl", rows)
    free = check(foveate, write_recipe(work, qwen_dir))["splits"]["train"]["tokens"]
    assert free["longest"] > free["p50"] and sum(bar["records"] for bar in free["histogram"]) == 22
    budget = free["longest"] - 4
    found = check(foveate, write_recipe(work, qwen_dir, batch={"max_tokens": budget}), code=2)
    assert found["splits"]["train"]["tokens"]["too_long"] == 2
    assert found["splits"]["train"]["tokens"]["longest"] == free["longest"]
    pixels = found["splits"]["train"]["sources"][0]["max_pixels"]
    assert pixels < 112 * 112 and any(f"max_pixels: {pixels}" in text for text in texts(found, "warn", "data.train"))
    smaller = write_recipe(work, qwen_dir, batch={"max_tokens": budget}, data={"train": [{"path": "train.jsonl", "max_pixels": pixels}]})
    assert check(foveate, smaller)["splits"]["train"]["usable"] == 22
    larger = write_recipe(work, qwen_dir, batch={"max_tokens": found["splits"]["train"]["tokens"]["fits_all"]})
    assert check(foveate, larger)["splits"]["train"]["usable"] == 22


def test_memory_time_and_disk_are_predicted(work, model_dir, foveate):
    write_set(work, 12)
    recipe = write_recipe(work, model_dir)
    found = check(foveate, recipe)["prediction"]
    assert found["memory_total"] == sum(found["memory"].values()) and found["memory"]["activations"] > 0
    assert found["checkpoint_bytes"] == 3 * found["memory"]["gradients"] > 0
    assert found["least_time_s"] == pytest.approx(found["total_flops"] / found["flops_per_s"])
    less = check(foveate, recipe, "train.gradient_checkpointing=full")["prediction"]
    assert less["memory"]["activations"] < found["memory"]["activations"] and less["total_flops"] > found["total_flops"]
    sharded = check(foveate, recipe, "--nproc", "4", "parallel.strategy=fsdp2")["prediction"]
    assert sharded["strategy"] == "fsdp2" and sharded["memory"]["weights"] < found["memory"]["weights"]


def test_settings_that_the_data_makes_odd(work, model_dir, foveate):
    write_set(work, 6)
    rows = [{"question": "say it", "answer": "word " * 90}]
    write_jsonl(work / "eval.jsonl", rows)
    recipe = write_recipe(work, model_dir, data={"eval": [{"path": "eval.jsonl"}]}, batch={"size": 64, "max_tokens": 512})
    found = check(foveate, recipe, "--nproc", "8", "evaluate.metrics=[vqa_accuracy]")
    longest = found["splits"]["eval"]["longest_answer"]
    assert longest > 64
    assert f"the longest held-out answer has {longest} tokens" in texts(found, "warn", "evaluate.max_new_tokens")[0]
    assert texts(found, "warn", "data.train") and "6 usable records for 8 processes" in texts(found, "warn", "data.train")[-1]
    assert texts(found, "note", "batch.size") and texts(found, "note", "evaluate.metrics")
    enough = check(foveate, recipe, f"evaluate.max_new_tokens={longest}")
    assert texts(enough, "warn") == []


def test_records_that_could_not_be_checked_are_no_tick_and_draw_no_conclusions(work, model_dir, foveate):
    answer = {"role": "assistant", "content": "word", "reasoning_content": "what the template leaves out"}
    write_jsonl(work / "train.jsonl", [{"messages": [{"role": "user", "content": "say it"}, answer]}])
    found = check(foveate, write_recipe(work, model_dir), "--nproc", "2", code=2)
    assert "1 record read = 0 usable + 0 bad + 1 unchecked" in texts(found, "bad", "data.train")
    assert not any("usable record" in line["text"] for line in found["findings"])


def test_weights_of_turns_are_said(work, model_dir, foveate):
    def chat(*weights):
        answers = [[{"role": "user", "content": "say"}, {"role": "assistant", "content": "it", "weight": weight}] for weight in weights]
        return {"messages": [turn for pair in answers for turn in pair]}

    recipe = write_recipe(work, model_dir)
    for rows, said in (([chat(1), chat(1, 1)], "%)"), ([chat(0.3, 0), chat(2.5, 1)], "; weights 0.3 to 2.5")):
        write_jsonl(work / "train.jsonl", rows)
        (line,) = [text for text in texts(check(foveate, recipe), "ok", "data.train") if "labels proven" in text]
        assert line.endswith(said)


def test_what_the_machine_lacks_is_said_now(work, model_dir, foveate, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    write_set(work, 4)
    (work / "taken").touch()
    recipe = write_recipe(work, model_dir, train={"output": "taken/run"}, log=["wandb"])
    found = check(foveate, recipe, "train.device=cuda", code=2)
    assert "is no folder" in texts(found, "bad", "train.output")[0]
    assert 'pip install "foveate[wandb]"' in texts(found, "bad", "log: wandb")[0]
    assert "0 found" in texts(found, "bad", "train.device")[0]


def test_the_report_is_what_its_schema_says(work, model_dir, foveate):
    write_set(work, 5)
    write_set(work, 3, "eval.jsonl")
    recipe = write_recipe(work, model_dir, data={"eval": [{"path": "eval.jsonl"}]})
    found = check(foveate, recipe)
    schema = json.loads((ROOT / "docs/check.schema.json").read_text())
    assert schema == report_schema(), "run python docs/make_check_schema.py"
    assert set(found) == set(schema["properties"]) == set(schema["required"])
    assert found.pop("ok") is True and found["schema_version"] == 1
    TypeAdapter(Checked).validate_python(found, extra="forbid")
    out = foveate("check", recipe).out
    assert "p50 / p95 / most" in out and "█" in out and "ready to train" in out


ADAPTER = """
import os, signal, time

def adapt(row):
    {at}
    return [{{"role": "user", "content": row["question"]}}, {{"role": "assistant", "content": row["answer"]}}]
"""


def test_a_process_that_is_killed_names_the_record(work, model_dir, foveate):
    write_jsonl(work / "train.jsonl", [{"question": f"{number}", "answer": "yes"} for number in range(200)])
    (work / "mine.py").write_text(ADAPTER.format(at="if row['question'] == '137': os.kill(os.getpid(), signal.SIGKILL)"))
    recipe = write_recipe(work, model_dir, data={"train": [{"path": "train.jsonl", "adapter": "mine.py:adapt"}]})
    found = check(foveate, recipe, "--allow-code", "--workers", "2", code=2)
    assert "train.jsonl row 137: a process was killed by SIGKILL while reading it" in texts(found, "bad", "data.train")[0]


def test_an_interrupt_ends_all_of_it(work, model_dir):
    write_jsonl(work / "train.jsonl", [{"question": f"{number}", "answer": "yes"} for number in range(400)])
    (work / "mine.py").write_text(ADAPTER.format(at="open('begun', 'w').close(); time.sleep(0.2)"))
    recipe = write_recipe(work, model_dir, data={"train": [{"path": "train.jsonl", "adapter": "mine.py:adapt"}]})
    process = start("check", recipe, "--allow-code", "--workers", "2", cwd=work, start_new_session=True)
    while not (work / "begun").exists() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip().endswith("interrupted") and "Traceback" not in errors
    with pytest.raises(ProcessLookupError):  # nothing of its session is left
        os.killpg(process.pid, 0)
