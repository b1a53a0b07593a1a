"""Whether what a run wrote at its end is what it trained: the exported model against the checkpoint, on the rehearsed records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from foveate.data.mixture import Mixture
from foveate.errors import CheckpointError
from foveate.model.adapters import base_model
from foveate.model.families import keeps_logits
from foveate.model.load import saved_processor
from foveate.run.base import load_trained, open_base
from foveate.run.certificate import Records, check_encoding, require_within
from foveate.run.prepare import user_functions
from foveate.run.trained import find_trained
from foveate.train.parity import SHARES, Difference, all_logits, compare, largest_logit

_MOST = 4  # records that are compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What was compared."""

    difference: Difference
    records: int
    positions: int
    step: int  # of the checkpoint whose weights were exported


def reload(run_dir: Path, mixture: Mixture, *, allow_code: bool) -> Reloaded:
    """Loads `run_dir`'s final model as any program would and compares its logits with those of the checkpoint that it came from.

    Raises FoveateError where the model, the adapters or the processor can't be loaded, lack a key, encode otherwise, or give other logits.
    """
    final = find_trained(run_dir, None)
    if not final.final:
        raise CheckpointError("the run wrote no final model", where=str(run_dir), fix="see the log of the training")
    recipe = final.recipe
    kept = find_trained(run_dir, "last" if recipe.train.best is None else "best")
    base = open_base(kept)
    functions = user_functions(recipe, allow_code=allow_code)
    collate = functions.get(recipe.data.collate or "")
    records = Records(
        split="train",
        conversations=tuple(mixture.conversation(place) for place in list(mixture.distinct())[:_MOST]),
        recipe=recipe,
        config=base.config,
        collate=collate,
    )
    batches = records.batches(base.processor)
    written = saved_processor(final.folder, base.config, trust_remote_code=recipe.model.trust_remote_code)
    check_encoding(records, batches, written)
    quantised = recipe.model.quantize is not None
    logits = []
    for trained in (kept, final):
        model, _ = load_trained(trained, base, quantised=quantised)
        logits.append(all_logits(model, batches, keeps_logits=keeps_logits(base_model(model))))
    before, after = logits
    found = compare(before, after, tolerance=SHARES["float32"] * largest_logit(before))
    require_within(found, "the exported model is not the trained one", where=final.folder, fix="report it, with the name of the model")
    return Reloaded(difference=found, records=len(batches), positions=sum(len(each) for each in before), step=kept.step)
