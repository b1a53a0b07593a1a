"""A NeMo Automodel VLM recipe becomes a Foveate recipe."""

from __future__ import annotations

from foveate.migrate.automodel.data import build_data, is_speech
from foveate.migrate.automodel.keys import ROWS
from foveate.migrate.automodel.model import build_model, build_tuning
from foveate.migrate.automodel.optim import build_optim
from foveate.migrate.automodel.run import build_batch, build_log, build_parallel, build_train
from foveate.migrate.draft import Draft
from foveate.migrate.options import Options
from foveate.migrate.quantize import settle
from foveate.migrate.read import Foreign
from foveate.migrate.report import Migration


def migrate_automodel(foreign: Foreign, options: Options) -> Migration:
    """Every section in turn, then what is left by the table of keys.

    FoveateError when a meta file that `dataset` names can't be read.
    """
    draft = Draft(foreign, ROWS)
    build_model(draft, options.base)
    build_data(draft, options)
    build_tuning(draft, speech=is_speech(draft))
    build_batch(draft)
    build_optim(draft)
    build_parallel(draft)
    build_train(draft, options.base)
    build_log(draft)
    settle(draft)
    return draft.finish()
