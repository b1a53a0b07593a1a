"""A run folder as a real run leaves it, written through the project's own listeners: for the tests of the report and for a look at it."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

from foveate.events import EvalRow, Evaluated, Quarantined, Started, Stepped
from foveate.report.log import EvalLog, MetricsLog
from foveate.report.run_files import ParamFacts, PartFacts, RunFacts, SourceFacts
from foveate.types import Origin

RECIPE = """\
# the effective recipe of this run
model:
  id: foveate:tiny
  dtype: float32
  attention: segments
tuning:
  type: lora
  rank: 16
  alpha: 32.0
  parts: [language, vision]
data:
  train:
    - path: demo/data/train.jsonl
      format: qa
  eval:
    - path: demo/data/eval.jsonl
  max_bad: 1%
batch: {size: 32, max_tokens: 2048, pack: true}
optim:
  name: adamw
  lr: 2.0e-3
  schedule: cosine
  warmup: 0.05
  per_part: {vision: {lr: 1.0e-3}}
train: {steps: 300, eval_every: 100, seed: 0, best: exact_match}
evaluate: {metrics: [loss, exact_match], max_new_tokens: 16}
"""
NOTES = (
    "attention: segments, because the family packs and the device is a CPU",
    "batch: 32 conversations make 2 micro-batches of at most 2,048 tokens; 99.2% of the positions are real tokens",
    "precision: float32, because this CPU has no native bfloat16",
    "data.train[0]: read as question/answer (columns image, question, answer)",
)


def write_run(run_dir: Path, *, steps: int = 300, rows: int = 240, media: int = 24, quarantined: int = 3, seed: int = 7) -> Path:
    """A finished run of `steps` steps and `rows` held-out answers, `media` of them with thumbnails. Returns `run_dir`."""
    draw = random.Random(seed)
    run_dir.mkdir(parents=True, exist_ok=True)
    listeners = (MetricsLog(run_dir), EvalLog(run_dir))
    tasks = [_task(draw, index) for index in range(rows)]
    for index in range(min(media, rows)):
        _sheet(run_dir / "eval" / "media" / f"{index:05d}.png", tasks[index][0], draw)

    def emit(event) -> None:
        for listener in listeners:
            listener(event)

    emit(Started(run_dir=run_dir, step=0, total_steps=steps, notes=NOTES))
    emit(_evaluation("before", 0, 0.06, tasks, media, draw))
    every = max(1, steps // 3)
    for step in range(1, steps + 1):
        emit(_step(step, steps, draw))
        if step % every == 0 and step < steps:
            emit(_evaluation("during", step, 0.5 + 0.4 * step / steps, tasks, media, draw))
    emit(_evaluation("after", steps, 0.925, tasks, media, draw))
    (run_dir / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    _ledger(run_dir, quarantined)
    _facts(run_dir, steps, quarantined).write(run_dir)
    return run_dir


def _task(draw: random.Random, index: int) -> tuple[str, str, str]:
    """(digits on the sheet, question, expected answer)."""
    digits = "".join(str(draw.randrange(10)) for _ in range(draw.randint(3, 6)))
    questions = {
        "Read the number.": digits,
        "How many digits are there?": str(len(digits)),
        "What is the largest digit?": max(digits),
        "Is there a 7?": "yes" if "7" in digits else "no",
    }
    question = list(questions)[index % len(questions)]
    return digits, question, questions[question]


def _sheet(path: Path, digits: str, draw: random.Random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = Image.new("RGB", (70 + 34 * len(digits), draw.choice((84, 96, 120))), "#f6f2e7")
    pen = ImageDraw.Draw(sheet)
    for at, digit in enumerate(digits):
        left, top = 36 + 34 * at, sheet.height // 2 - 18
        pen.rectangle((left, top, left + 30, top + 36), outline="#b9b19a")
        pen.text((left + 8 + draw.randint(-2, 2), top + 3 + draw.randint(-3, 3)), digit, fill="#22304a", font_size=26)
    pen.line((12, sheet.height - 12, sheet.width - 12, sheet.height - 12), fill="#cfc7b1")
    sheet.save(path)


def _evaluation(stage: str, step: int, share: float, tasks: list, media: int, draw: random.Random) -> Evaluated:
    rows = []
    for index, (digits, question, expected) in enumerate(tasks):
        right = draw.random() < share
        prediction = expected if right else draw.choice((digits[::-1], str(draw.randrange(10)), "yes", "", "no"))
        rows.append(
            EvalRow(
                index=index,
                origin=Origin(dataset="handwriting", file="demo/data/eval.jsonl", row=index),
                question=question,
                expected=(expected,),
                prediction=prediction,
                scores={"exact_match": float(prediction == expected)},
                media=(f"eval/media/{index:05d}.png",) if index < media else (),
            )
        )
    exact = sum(row.scores["exact_match"] for row in rows) / len(rows)
    metrics = {"loss": 3.1 * math.exp(-step / 70) + 0.16, "exact_match": exact}
    return Evaluated(step=step, stage=stage, metrics=metrics, rows=tuple(rows), time_s=4.2)


def _step(step: int, steps: int, draw: random.Random) -> Stepped:
    shape = min(step / (0.05 * steps), 0.5 * (1 + math.cos(math.pi * step / steps)))
    return Stepped(
        step=step,
        loss=3.3 * math.exp(-step / (0.2 * steps)) + 0.1 + abs(draw.gauss(0, 0.06)),
        grad_norm=0.6 + 2.2 * math.exp(-step / (0.15 * steps)) + abs(draw.gauss(0, 0.15)),
        lr={"language": 2e-3 * shape, "vision": 1e-3 * shape},
        targets=draw.randint(80, 130),
        tokens=draw.randint(2300, 2700),
        samples=32,
        media=32,
        padding=0.008,
        time_s=0.62 + abs(draw.gauss(0, 0.05)),
        data_wait_s=0.002,
    )


def _ledger(run_dir: Path, lines: int) -> None:
    reasons = [
        ("image_truncated", "image ends after 1,204 of 9,310 bytes", "copy scans/0412.jpg again"),
        ("image_missing", "no file scans/0977.png", "put it there, or set media_root"),
        ("empty_answer", "the answer is empty", "fill it in, or take the record out"),
    ]
    written = []
    for index in range(lines):
        reason, problem, fix = reasons[index % 3]
        origin = Origin(dataset="handwriting", file="demo/data/train.jsonl", row=411 + 113 * index)
        written.append(
            json.dumps(dataclasses.asdict(Quarantined(origin=origin, split="train", reason=reason, problem=problem, fix=fix))) + "\n"
        )
    (run_dir / "quarantine.jsonl").write_text("".join(written), encoding="utf-8")


def _facts(run_dir: Path, steps: int, quarantined: int) -> RunFacts:
    table = (
        PartFacts(part="vision", params=1_204_224, trained=98_304, how="lora", lr=1e-3),
        PartFacts(part="projector", params=98_304, trained=0),
        PartFacts(part="language", params=1_080_576, trained=147_456, how="lora", lr=2e-3),
        PartFacts(part="embeddings", params=98_688, trained=0),
    )
    reasons = {"image_truncated": (quarantined + 2) // 3, "image_missing": (quarantined + 1) // 3, "empty_answer": quarantined // 3}
    return RunFacts(
        recipe_name="handwriting_lora",
        command="foveate train recipes/handwriting_lora.yaml train.steps=300",
        status="done",
        finished_at="2026-01-17T10:42:05",
        versions={"foveate": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "python": "3.11.2", "device": "CPU, 2 cores"},
        notes=NOTES,
        data=(
            SourceFacts(name="demo/data/train.jsonl", split="train", records=9600, format="qa"),
            SourceFacts(name="demo/data/eval.jsonl", split="eval", records=240, format="qa"),
        ),
        read=9840,
        used=9840 - quarantined,
        quarantined=quarantined,
        reasons={reason: rows for reason, rows in reasons.items() if rows},
        params=ParamFacts(total=2_481_792, trained=245_760, table=table),
        time_s=0.66 * steps,
        total_time_s=0.66 * steps + 21,
        peak_memory_bytes=1_320_000_000,
        checkpoint="runs/handwriting_lora/model",
        base_model="src/foveate/embedded/tiny",
    )
