"""Real runs of the command line on tiny real models and files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from foveate.cli.main import main
from foveate.report.log import STEP_TIMES
from tests import families

COLOURS = {"red": (214, 40, 40), "green": (42, 157, 73), "blue": (38, 84, 180), "yellow": (244, 196, 48)}


@dataclass(frozen=True)
class Result:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory) -> Path:
    """A tiny SmolVLM with random weights."""
    return families.save("smolvlm", tmp_path_factory.mktemp("model") / "smolvlm")


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def foveate(capsys):
    """Runs a command in this process and gives what it printed."""

    def call(*args: object) -> Result:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return call


def start(*args: object, cwd: Path, **options) -> subprocess.Popen:
    """The same in a process of its own, which can be killed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-m", "foveate", *map(str, args)]
    return subprocess.Popen(command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def picture(colour: str, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A disc of that colour on a light ground."""
    image = Image.new("RGB", size, (240, 240, 236))
    ImageDraw.Draw(image).ellipse((8, 6, 34, 32), fill=COLOURS[colour])
    return image


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_set(folder: Path, count: int = 12, name: str = "train.jsonl") -> Path:
    """`count` question/answer records about images of `folder`/images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        colour = list(COLOURS)[i % 4]
        file = f"images/{Path(name).stem}-{i}.png"
        picture(colour, (40 + 4 * (i % 5), 40)).save(folder / file)
        rows.append({"image": file, "question": "What color is it?" + " Say." * (i % 3), "answer": colour})
    return write_jsonl(folder / name, rows)


def write_recipe(folder: Path, base: Path, **sections: object) -> Path:
    """recipe.yaml in `folder`; JSON is YAML."""
    recipe = {
        "model": {"id": str(base)},
        "tuning": {"type": "lora", "rank": 4, "parts": ["language"]},
        "data": {"train": [{"path": "train.jsonl"}], "workers": 0},
        "batch": {"size": 4, "max_tokens": 256},
        "optim": {"lr": 1e-3},
        "train": {"steps": 4, "output": "run"},
    }
    for name, value in sections.items():
        recipe[name] = {**recipe.get(name, {}), **value} if isinstance(value, dict) else value
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return path


def metrics(run: Path) -> list[dict]:
    """metrics.jsonl without its time fields."""
    timed = set(STEP_TIMES)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in timed} for line in lines]
