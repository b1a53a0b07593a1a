"""`foveate eval`: measure a model on a recipe's held-out data, without training."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from foveate.config.recipe import Recipe
from foveate.dist.mesh import Ranks, pick_device
from foveate.errors import FoveateError
from foveate.events import Evaluated
from foveate.model.adapters import base_model, load_adapter
from foveate.model.families import keeps_logits
from foveate.report.run_files import EvalFile
from foveate.run.accounts import Accounts
from foveate.run.auto import autocast_dtype
from foveate.run.build import load_attending
from foveate.run.measure import measure
from foveate.run.prepare import prepare


def evaluate_here(recipe: Recipe, *, model_dir: Path | None, output: Path, allow_code: bool, console: Console) -> Evaluated:
    """Evaluate the recipe's base model, or the full model or adapter in `model_dir`; writes answers below `output`.

    Raises FoveateError when there is no held-out data, or the adapter does not belong to the base model.
    """
    if not recipe.data.eval:
        raise FoveateError("the recipe has no held-out data", where="data.eval", fix="add a source under data.eval")
    is_adapter = model_dir is not None and (model_dir / "adapter_config.json").is_file()
    if model_dir is not None and not is_adapter:
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"id": str(model_dir)})})
    output.mkdir(parents=True, exist_ok=True)
    ranks = Ranks(device=pick_device(recipe.train.device))
    prepared = prepare(recipe, allow_code=allow_code)
    accounts = Accounts.open(prepared, output, ranks)
    accounts.preflight_eval()
    for bad in accounts.known:
        console.print(f"quarantined {bad.origin}: {bad.reason}: {bad.problem}", markup=False, highlight=False)
    model = load_attending(prepared, compute=autocast_dtype(recipe, ranks))
    if is_adapter:
        model = load_adapter(model, model_dir)
    model.to(ranks.device)
    held_out = measure(
        prepared,
        accounts,
        output,
        ranks=ranks,
        keeps_logits=keeps_logits(base_model(model)),
        autocast=autocast_dtype(recipe, ranks),
        synced=False,
    )
    result = held_out.evaluate(model, stage="after", step=0)
    EvalFile.of(result).write(output)
    return result
