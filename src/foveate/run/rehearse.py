"""`foveate rehearse`: the whole of a recipe on a tiny random model of its family, through the real commands, on a CPU."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from foveate.config.dump import dump_recipe
from foveate.config.load import load_recipe
from foveate.config.recipe import Recipe
from foveate.data.mixture import build_mixture
from foveate.dist.fsdp2 import blocks_of
from foveate.encode.encoder import Encoder
from foveate.errors import FoveateError, ModelError
from foveate.model.families import family_of
from foveate.model.load import load_skeleton
from foveate.run.checks import machine
from foveate.run.checks.findings import Checked
from foveate.run.prepare import load_encoder, open_records, user_functions
from foveate.run.rehearsal.children import Ended, cause, metrics_of, run_child
from foveate.run.rehearsal.records import NO_LIMIT, Chosen, choose, require_few_bad
from foveate.run.rehearsal.rehearsed import STEPS, changes, rehearsed_recipe
from foveate.run.rehearsal.reload import reload
from foveate.run.rehearsal.stand_in import StandIn, make_stand_in

State = Literal["ok", "bad", "skipped"]
SCHEMA = 1  # of --json; raised when a field is taken away or changes its meaning
_INTERRUPT_AFTER = 1  # steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One part of the rehearsal. `skipped`: an earlier one failed, or the recipe has no such thing."""

    name: str
    state: State
    text: str
    time_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a rehearsal is made."""

    name: str  # the recipe's
    folder: Path  # for everything that is written
    run_dir: Path  # the user's own output folder: looked at, never touched
    nproc: int = 1
    family: str | None = None
    allow_code: bool = False


@dataclass(slots=True, kw_only=True)
class Rehearsal:
    """What was rehearsed. `ok` where no stage is bad."""

    schema_version: int = SCHEMA
    model: str = ""
    own_processor: bool = False
    stages: list[Stage] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)  # what of the recipe was not rehearsed as it stands

    @property
    def ok(self) -> bool:
        """True where nothing failed."""
        return all(stage.state != "bad" for stage in self.stages)


@dataclass(slots=True, kw_only=True)
class _Scene:
    """What the stages hand on to each other."""

    recipe: Recipe
    options: Options
    result: Rehearsal
    stand_in: StandIn | None = None
    encoder: Encoder | None = None
    chosen: list[Chosen] = field(default_factory=list)  # train, then eval where there is one
    made: Recipe | None = None

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.options.folder

    @property
    def output(self) -> Path:
        """The rehearsed run's folder."""
        return self.folder / "run"

    @property
    def recipe_file(self) -> Path:
        """The recipe as it is rehearsed."""
        return self.folder / f"{self.options.name}.yaml"


def rehearse(
    recipe: Recipe, options: Options, *, progress: Callable[[str], object], ended: Callable[[Stage], object] = lambda stage: None
) -> Rehearsal:
    """Rehearses every stage up to the first that fails. Nothing that a stage can say is raised.

    `progress` gets a stage's name as it begins, `ended` the stage itself as it ends or is skipped.
    """
    result = Rehearsal()
    scene = _Scene(recipe=recipe, options=options, result=result)
    over = False
    for name, work in _STAGES.items():
        if over:
            result.stages.append(Stage(name=name, state="skipped", text="not reached"))
            ended(result.stages[-1])
            continue
        progress(name)
        started = time.perf_counter()
        try:
            text, state = work(scene), "ok"
        except FoveateError as error:
            text, state, over = str(error), "bad", True
        skipped = state == "ok" and text is None
        shown = "the recipe asks for none" if text is None else text
        spent = time.perf_counter() - started
        result.stages.append(Stage(name=name, state="skipped" if skipped else state, text=shown, time_s=round(spent, 2)))
        ended(result.stages[-1])
    return result


def _surroundings(scene: _Scene) -> str:
    """Packages that the recipe names, and the folder that training will write to."""
    found = Checked()
    machine.check_packages(found, scene.recipe)
    machine.check_folder(found, scene.recipe, scene.options.run_dir, None)
    _raise_bad(found)
    user_functions(scene.recipe, allow_code=scene.options.allow_code)
    return f"packages are there; {scene.options.run_dir} can be written"


def _model(scene: _Scene) -> str:
    scene.stand_in = make_stand_in(
        scene.recipe.model, scene.folder / "model", family=scene.options.family, multimodal=scene.recipe.data.collate is None
    )
    scene.result.model, scene.result.own_processor = scene.stand_in.family, scene.stand_in.own
    scene.result.changes += scene.stand_in.notes
    return scene.stand_in.said


def _template(scene: _Scene) -> str:
    """Processor, chat template and the encoder that proves labels."""
    built = not scene.stand_in.own and scene.recipe.model.chat_template is None
    options = {"template_options": {}} if built else {}
    section = scene.recipe.model.model_copy(update={"id": str(scene.stand_in.folder), "revision": None, **options})
    _, processor, scene.encoder, _ = load_encoder(scene.recipe.model_copy(update={"model": section}))
    if scene.encoder is None:
        return f"{type(processor).__name__}; data.collate makes the batches"
    kinds = ", ".join(sorted(scene.encoder.kinds)) or "text alone"
    return f"{type(processor).__name__}, {'its own' if scene.stand_in.own else 'built'}; template takes {kinds}"


def _data(scene: _Scene) -> str:
    """The records most likely to fail: found, decoded, encoded, their labels proven."""
    recipe = scene.recipe
    functions = user_functions(recipe, allow_code=scene.options.allow_code)
    limit = recipe.batch.max_tokens if scene.stand_in.own else NO_LIMIT
    for split in ("train", "eval"):
        mixture = open_records(recipe, split, functions)
        if mixture is not None:
            scene.chosen.append(choose(mixture, split, encoder=scene.encoder, max_tokens=limit, rules=recipe.media))
    require_few_bad(scene.chosen, recipe.data.max_bad)
    said = []
    for chosen in scene.chosen:
        why = ", ".join(dict.fromkeys(reason for reasons in chosen.reasons.values() for reason in reasons))
        said.append(f"{chosen.split}: {len(chosen.reasons)} of {chosen.mixture.records:,} records ({why})")
        if chosen.tokens:
            said.append(f"labels proven, {chosen.trained:,} of {chosen.tokens:,} tokens trained; longest {chosen.longest:,} tokens")
        if chosen.bad:
            said.append(f"{len(chosen.bad)} bad ones are within max_bad")
    return "; ".join(said)


def _tuning(scene: _Scene) -> str:
    """What is trained: on the real model's skeleton where its configuration is at hand, and on the tiny one."""
    _make_recipe(scene)
    found = Checked()
    sections = [scene.recipe] if scene.stand_in.own else []
    for recipe in [*sections, scene.made]:
        _, _, _, tokens = load_encoder(recipe if recipe is scene.made else _offline(recipe))
        model = machine.build_skeleton(found, _offline(recipe), family_of(load_skeleton(_offline(recipe).model).config), None, tokens)
        _raise_bad(found)
        if recipe.parallel.strategy == "fsdp2":
            require_blocks(model)
    texts = [finding.text for finding in found.findings if finding.state == "ok"]
    return texts[0] + ("" if scene.stand_in.own else " (of the tiny model)")


def require_blocks(model: nn.Module) -> None:
    """Raises ModelError where FSDP2 would find no blocks: every process would gather the whole model at once."""
    if not blocks_of(model):
        fix = "use `parallel.strategy: ddp`"
        raise ModelError("no repeated blocks are found that could be sharded one by one", where="parallel.strategy: fsdp2", fix=fix)


def _offline(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"offline": True})})


def _make_recipe(scene: _Scene) -> None:
    """Writes the recipe that is rehearsed and reads it back, as `foveate train` will."""
    held_out = scene.chosen[1] if len(scene.chosen) > 1 else None
    made = rehearsed_recipe(scene.recipe, scene.stand_in, scene.chosen[0], held_out, scene.output, nproc=scene.options.nproc)
    scene.recipe_file.write_text(dump_recipe(made), encoding="utf-8")
    scene.made = load_recipe(scene.recipe_file)
    scene.result.changes += changes(scene.recipe, made)


def _training(scene: _Scene) -> str:
    """Evaluation before, warm-up, steps, an evaluation, a checkpoint, and SIGTERM, as a scheduler sends it."""
    sent: list[int] = []

    def watch(child: subprocess.Popen) -> None:
        if not sent and sum(line["event"] == "step" for line in metrics_of(scene.output)) >= _INTERRUPT_AFTER:
            sent.append(child.pid)
            child.send_signal(signal.SIGTERM)

    ended = _train(scene, "train", watch=watch)
    if ended.code not in (0, 128 + signal.SIGTERM):
        raise FoveateError(cause(ended))
    losses = _losses(scene)
    warmed = ", warm-up" if scene.made.optim.warmup else ""
    how = "ended before SIGTERM reached it" if ended.code == 0 else f"stopped by SIGTERM after step {len(losses)} with a checkpoint"
    ranks = f" in {scene.options.nproc} processes ({scene.made.parallel.strategy})" if scene.options.nproc > 1 else ""
    return f"loss {losses[0]:.3f} at step 1{warmed}{ranks}; {how}"


def _resume(scene: _Scene) -> str:
    """`--resume` to the end, with the remaining evaluations, checkpoints and the export."""
    before = len(_losses(scene))
    ended = _train(scene, "resume", "--resume")
    if ended.code != 0:
        raise FoveateError(cause(ended))
    losses = _losses(scene)
    if len(losses) != STEPS:
        raise FoveateError(f"the resumed run ended after step {len(losses)} of {STEPS}", where="foveate train --resume", fix="report it")
    done = f"steps {before + 1} to {STEPS}" if before < STEPS else "the last checkpoint"
    return f"{done} after --resume, loss {losses[-1]:.3f}; final model written"


def _train(scene: _Scene, log: str, *more: str, watch: Callable[[subprocess.Popen], object] | None = None) -> Ended:
    arguments = ["train", str(scene.recipe_file), "--nproc", str(scene.options.nproc), *more]
    return run_child([*arguments, *_code(scene)], scene.folder / f"{log}.log", watch=watch)


def _code(scene: _Scene) -> list[str]:
    return ["--allow-code"] if scene.options.allow_code else []


def _losses(scene: _Scene) -> list[float]:
    """Training losses by step. Raises FoveateError for one that is not a number."""
    losses = [line["loss"] for line in metrics_of(scene.output) if line["event"] == "step"]
    for step, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            raise FoveateError(f"the loss of step {step} is {loss}", where="training", fix="lower optim.lr, or use `model.dtype: float32`")
    return losses


def _evaluation(scene: _Scene) -> str | None:
    """Every metric was measured at every stage that the recipe has."""
    if not scene.made.data.eval:
        return None
    lines = [line for line in metrics_of(scene.output) if line["event"] == "eval"]
    require_measured(lines, scene.made.evaluate.metrics)
    last = ", ".join(f"{name} {value:.3f}" for name, value in lines[-1]["metrics"].items())
    return f"{len(lines)} times, at steps {', '.join(str(line['step']) for line in lines)}; {last}"


def require_measured(lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Raises FoveateError where an evaluation lacks a metric, or has one that is not a number."""
    for line in lines:
        wrong = [name for name in names if not math.isfinite(line["metrics"].get(name, math.nan))]
        if wrong:
            where, fix = f"evaluation at step {line['step']}", "look at the held-out answers with `foveate check`, or leave the metric out"
            raise FoveateError(f"{', '.join(wrong)} could not be measured", where=where, fix=fix)


def _reload(scene: _Scene) -> str:
    """The final model, loaded back."""
    made = scene.made
    functions = user_functions(made, allow_code=scene.options.allow_code)
    mixture = build_mixture(made.data.train, functions=functions, offline=made.model.offline, rules=made.media)
    found = reload(scene.output, mixture, allow_code=scene.options.allow_code)
    kind = "adapters on their base" if made.tuning.type == "lora" else "the whole model"
    return (
        f"{kind} and processor reloaded: logits of {found.positions:,} positions of {found.records} records differ by at most "
        f"{found.difference.largest:.1g} from the checkpoint of step {found.step}"
    )


def _export(scene: _Scene) -> str:
    """`foveate export`, as a user would call it after training: merged where adapters were trained, with its certificate."""
    folder = scene.folder / "export"
    ended = run_child(["export", str(scene.output), "--out", str(folder), *_code(scene)], scene.folder / "export.log")
    if ended.code != 0:
        raise FoveateError(cause(ended))
    figures = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
    merged = "merged, " if scene.made.tuning.type == "lora" else ""
    return f"{merged}with {len(figures['files'])} files, reloaded: logits differ by up to {figures['parity']['written']['largest']:.1g}"


def _raise_bad(found: Checked) -> None:
    bad = next((finding for finding in found.findings if finding.state == "bad"), None)
    if bad is not None:
        raise FoveateError(bad.text, where=bad.about if bad.about not in bad.text else "")


_STAGES: dict[str, Callable[[_Scene], str | None]] = {
    "surroundings": _surroundings,
    "model": _model,
    "template": _template,
    "data": _data,
    "tuning": _tuning,
    "training": _training,
    "resume": _resume,
    "evaluation": _evaluation,
    "reload": _reload,
    "export": _export,
}
