"""The composition root: a recipe becomes a run. The only module that knows all the others."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from foveate.batching.loader import Share
from foveate.batching.workers import iterate, worker_count
from foveate.config.dump import dump_recipe
from foveate.config.recipe import Recipe
from foveate.dist.mesh import Ranks, on_first
from foveate.dist.strategy import unwrap
from foveate.evaluate.metrics import higher_is_better
from foveate.events import Evaluated, Listener, Saved, Started
from foveate.model.adapters import base_model
from foveate.model.compiled import as_written
from foveate.model.families import keeps_logits
from foveate.model.load import resolve_id, weights_fingerprint
from foveate.model.modules import module_table
from foveate.model.parts import parts_table
from foveate.report.run_page import write_report
from foveate.run.accounts import Accounts
from foveate.run.auto import autocast_dtype
from foveate.run.build import Options, Session, build
from foveate.run.facts import run_facts
from foveate.run.features import keeping_features, require_folder
from foveate.run.formula import Speed
from foveate.run.measure import held_out
from foveate.run.prepare import Prepared, prepare
from foveate.train import checkpoint, manifest
from foveate.train.checkpoint import Best, RunState
from foveate.train.export import export_model
from foveate.train.loop import Run, catch_signals, fit
from foveate.train.optim import peak_rates, set_rates
from foveate.train.step import Stepper


def train(recipe: Recipe, options: Options, ranks: Ranks, listeners: Sequence[Listener]) -> int:
    """Run a recipe from data to report; returns 0, or the signal that ended it early (it can then be resumed).

    Raises FoveateError for anything that the user can mend.
    """
    on_first(ranks, lambda: require_folder(recipe.media))
    prepared = prepare(recipe, allow_code=options.allow_code)
    found, head = checkpoint.find(options.resume, ranks) if options.resume else None, None
    fingerprints = fingerprints_of(prepared)
    if found is not None:  # before anything slow
        now = RunState(step=0, recipe=recipe.model_dump(mode="json"), fingerprints=fingerprints)
        head = on_first(ranks, lambda: checkpoint.check_state(found.path, now)).versions.get("head", "chunked")
    accounts = Accounts.open(prepared, options.run_dir, ranks)
    accounts.preflight(found.path.parents[1] if found is not None else None)
    session = build(prepared, options, ranks, accounts, listeners, fingerprints, head=head)
    with keeping_features(prepared, session.model, session.strategy, ranks, notes=session.notes) as session.features:
        run = make_run(session)
        if found is not None:
            resume(session, run, found)
        on_first(ranks, lambda: (options.run_dir / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8"))
        with catch_signals(run):
            drive(session, run)
    if run.step == run.total_steps:
        return 0
    return run.stopping[0] if run.stopping else signal.SIGTERM  # a process that got no signal stopped with one that did


def drive(session: Session, run: Run) -> None:
    """Evaluate, fit, evaluate, export, report."""
    recipe = session.recipe
    modules = module_table(unwrap(session.model), peak_rates(recipe.optim), recipe.tuning)
    run.emit(
        Started(
            run_dir=session.options.run_dir,
            step=run.step,
            total_steps=run.total_steps,
            notes=tuple(session.notes),
            modules=tuple(modules),
        )
    )
    write_facts(session, run, status="running")
    for bad in session.accounts.known:
        run.emit(bad)
    if recipe.data.eval and recipe.evaluate.before and run.step == 0:
        run.emit(run.evaluate("before"))
    began = time.perf_counter()
    done = fit(run)
    session.train_time_s = time.perf_counter() - began
    if done:
        finish(session, run)
    kept = [] if session.features is None else [session.features.summary()]
    kept += [session.decoded.summary()] if recipe.media.cache_decoded != "off" and session.prepared.encoder is not None else []
    session.notes += kept
    why = "done" if done else "interrupted"
    finished = session.accounts.finished(run.step, why, time.perf_counter() - session.started, "\n".join(kept))
    run.emit(finished)
    write_facts(session, run, status=finished.why)
    on_first(session.ranks, lambda: write_report(session.options.run_dir))


def finish(session: Session, run: Run) -> None:
    """The last checkpoint, the best weights if asked for, the last evaluation, the final model."""
    recipe, model_dir = session.recipe, session.options.run_dir / "model"
    if session.resumed_at != run.step:  # else this checkpoint is there, and its evaluation is in it
        if recipe.train.best is not None:
            run.emit(run.evaluate("during"))
        run.emit(run.save())
    if session.best is not None and session.best.step != run.step:
        session.notes.append(
            f"the final model is that of step {session.best.step}, the best by {session.best.metric} ({session.best.value:.4f})"
        )
        path = checkpoint_root(session) / manifest.folder_name(session.best.step)
        checkpoint.load_checkpoint(path, state_of(session, run), model=session.model, optimizer=session.optimizer, ranks=session.ranks)
    if recipe.data.eval:
        run.emit(run.evaluate("after"))
    export_model(
        session.model,
        session.prepared.processor,
        model_dir,
        base_id=resolve_id(recipe.model),
        base_revision=recipe.model.revision,
        ranks=session.ranks,
    )
    run.emit(Saved(step=run.step, path=model_dir, kind="model"))


def make_run(session: Session) -> Run:
    """The loop's view of the session."""
    recipe, ranks = session.recipe, session.ranks
    plan = session.accounts.plan
    source = session.prepared.source(plan, share_of(session), encode=None if session.features is None else session.features.encode)
    stepper = make_stepper(session)
    workers, most_bytes = worker_count(recipe.data.workers, ranks.world), recipe.data.prefetch_mb << 20
    measure = held_out(session.prepared, session.accounts, stepper, session.options.run_dir) if recipe.data.eval else None

    def evaluate(stage: str) -> Evaluated:
        step = session.best.step if stage == "after" and session.best else run.step
        with as_written(recipe.train.compile):
            result = measure.evaluate(unwrap(session.model), stage=stage, step=step)
        note_best(session, result)
        return result

    run = Run(
        total_steps=plan.total_steps,
        step=0,
        batches=lambda first: session.decoded.counting(
            iterate(source, first=first, last=plan.total_steps, workers=workers, most_bytes=most_bytes)
        ),
        train_step=lambda data, stop: stepper.run(data, stop=stop),
        set_rates=lambda step: set_rates(session.optimizer, recipe.optim, step, plan.total_steps),
        evaluate=evaluate,
        save=lambda: save(session, run),
        save_wanted=lambda: session.improved,
        account=session.accounts.step,
        emit=session.emit,
        eval_every=recipe.train.eval_every if recipe.data.eval else None,
        save_every=recipe.train.save_every,
        speed=Speed(session.prepared, ranks, autocast_dtype(recipe, ranks)),
    )
    return run


def make_stepper(session: Session) -> Stepper:
    """The optimizer step of this session."""
    recipe = session.recipe
    return Stepper(
        model=session.model,
        optimizer=session.optimizer,
        strategy=session.strategy,
        ranks=session.ranks,
        family=session.prepared.family,
        keeps_logits=keeps_logits(base_model(unwrap(session.model))),
        autocast=autocast_dtype(recipe, session.ranks),
        max_grad_norm=recipe.optim.max_grad_norm,
        seed=recipe.train.seed,
        features=None if session.features is None else session.features.cut,
    )


def save(session: Session, run: Run) -> Saved:
    """Write a checkpoint of the step just done; keeps the newest and the best."""
    session.improved = False
    protect = [session.best.step] if session.best else []
    path = checkpoint.save_checkpoint(
        checkpoint_root(session),
        state_of(session, run),
        model=session.model,
        optimizer=session.optimizer,
        ranks=session.ranks,
        keep=session.recipe.train.keep,
        protect=protect,
    )
    return Saved(step=run.step, path=path, kind="checkpoint")


def resume(session: Session, run: Run, found: manifest.Found) -> None:
    """Go on from a checkpoint: step, weights, optimizer; everything else follows from the step."""
    loaded = checkpoint.load_checkpoint(
        found.path, state_of(session, run), model=session.model, optimizer=session.optimizer, ranks=session.ranks, found=found
    )
    run.step, session.best = loaded.state.step, loaded.state.best
    session.resumed_at = run.step
    session.notes += [*loaded.notes, f"resumed from {loaded.path} at step {run.step}"]
    best = session.best
    if best is not None and not on_first(session.ranks, (checkpoint_root(session) / manifest.folder_name(best.step)).is_dir):
        session.best = None  # with --from: it lies in another run's folder, and may be gone by the time that it is wanted
        session.notes.append(f"the best checkpoint so far, step {best.step}, is not in this folder: the best is looked for anew")


def state_of(session: Session, run: Run) -> RunState:
    """What a checkpoint says of the run."""
    return RunState(
        step=run.step,
        recipe=session.recipe.model_dump(mode="json"),
        fingerprints=session.fingerprints,
        world=session.ranks.world,
        best=session.best,
        ledger=session.accounts.reasons(),
        versions={"torch": torch.__version__, "head": session.head},
    )


def fingerprints_of(prepared: Prepared) -> dict[str, str]:
    """What a run depends on beside its recipe, hashed."""
    found = {"base model": weights_fingerprint(prepared.recipe.model, prepared.config), "training data": prepared.train.fingerprint()}
    if prepared.encoder is not None:
        found["encoder"] = prepared.encoder.fingerprint()
    if prepared.eval is not None:
        found["held-out data"] = prepared.eval.fingerprint()
    return found


def note_best(session: Session, result: Evaluated) -> None:
    """Remember the best evaluation during training."""
    metric = session.recipe.train.best
    if metric is None or result.stage != "during":
        return
    value, best = result.metrics[metric], session.best
    if best is None or (value > best.value if higher_is_better(metric) else value < best.value):
        session.best, session.improved = Best(metric=metric, value=value, step=result.step), True


def checkpoint_root(session: Session) -> Path:
    """Where this run's checkpoints lie."""
    return session.options.run_dir / "checkpoints"


def share_of(session: Session) -> Share:
    """This rank's place. One without media must run the towers because another rank does, where their weights are sharded or reduced."""
    ranks, trained = session.ranks, {row.part for row in parts_table(unwrap(session.model), {}) if row.trained}
    together = session.strategy.name == "fsdp2" or bool(trained & {"vision", "projector"})
    return Share(rank=ranks.rank, world=ranks.world, towers=ranks.world > 1 and together)


def write_facts(session: Session, run: Run, *, status: str) -> None:
    """Write run.json."""
    rates = peak_rates(session.recipe.optim)
    rows = parts_table(unwrap(session.model), rates)
    facts = run_facts(
        session.prepared,
        session.accounts,
        rows,
        module_table(unwrap(session.model), rates, session.recipe.tuning),
        step=run.step,
        name=session.options.name,
        command=session.options.command,
        notes=tuple(session.notes),
        status=status,
        run_dir=session.options.run_dir,
        train_time_s=session.train_time_s,
        total_time_s=time.perf_counter() - session.started,
        device=session.ranks.device,
        fingerprints=session.fingerprints,
        model_step=session.best.step if session.best is not None else run.step,
    )
    if session.ranks.first:
        facts.write(session.options.run_dir)
