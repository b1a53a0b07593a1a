"""A LLaMA-Factory SFT recipe, with its dataset_info.json, becomes a Foveate recipe."""

from __future__ import annotations

from foveate.errors import FoveateError
from foveate.migrate.draft import Draft
from foveate.migrate.llamafactory.data import build_data
from foveate.migrate.llamafactory.keys import ROWS
from foveate.migrate.llamafactory.model import build_model, build_tuning
from foveate.migrate.llamafactory.train import build_batch, build_evaluate, build_log, build_optim, build_parallel, build_train
from foveate.migrate.options import Options
from foveate.migrate.quantize import settle
from foveate.migrate.read import Foreign
from foveate.migrate.report import Migration


def migrate_llamafactory(foreign: Foreign, options: Options) -> Migration:
    """Every group of settings in turn, then what is left by the table of keys.

    FoveateError when the recipe is not supervised fine-tuning, or its data sets are not found.
    """
    draft = Draft(foreign, ROWS)
    stage = draft.text("stage") or "sft"
    if stage != "sft":
        raise FoveateError(
            f"stage {stage} is not supervised fine-tuning", where=str(foreign.path), fix="only `stage: sft` has a counterpart"
        )
    draft.took("stage", "mapped", "what Foveate does")
    build_model(draft, options.base)
    build_tuning(draft)
    build_data(draft, options)
    build_batch(draft, options.nproc)
    build_optim(draft)
    build_train(draft, options.base)
    build_evaluate(draft)
    build_parallel(draft)
    build_log(draft)
    settle(draft)
    return draft.finish()
