"""Writes docs/migrate.md from the mapping tables of `foveate migrate`.

python docs/make_migrate.py            # write it
python docs/make_migrate.py --check    # exit with 1 if the committed page is not what this script makes
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from generated import write_or_compare

from foveate.migrate.automodel.keys import ROWS as AUTOMODEL
from foveate.migrate.draft import Row
from foveate.migrate.llamafactory.keys import ROWS as LLAMAFACTORY
from foveate.migrate.report import STATES

PAGE = Path(__file__).with_name("migrate.md")

INTRO = """\
# From other trainers

<!-- Written by docs/make_migrate.py from the tables in src/foveate/migrate. Change those, then run the script. -->

`foveate migrate FILE` turns a NeMo Automodel VLM recipe, or a LLaMA-Factory SFT recipe with its `dataset_info.json`, into a Foveate
recipe. Which of the two it is, it sees.

```console
foveate migrate gemma3_vl_4b_medpix.yaml --output medpix.yaml
foveate migrate qwen3vl_lora_sft.yaml --nproc 8 --dataset-info data/dataset_info.json --output sft.yaml
foveate migrate recipe.yaml --optimizer.lr 2e-5 step_scheduler.max_steps=100     # overrides, as the other trainer takes them
foveate check medpix.yaml
```

Every value of the new recipe says in a comment where it comes from. Every key of the old one ends in exactly one line of the table on
standard error (`--json` for programs), as one of:

"""

NOTES = """\
`--strict` exits with 2 when anything was dropped. What needs attention, dropped or manual, also stands at the top of the new recipe.

- **Defaults are written out** where the other trainer's differ from Foveate's, so the new recipe trains at the same rate in every step.
- **Data sets** that have a name here keep it (`use: medpix`). The function of another set is named for you to replace by `columns:` or
  an `adapter:`; `foveate migrate` runs no code of the recipe. Entries of `dataset_info.json` become sources with their columns and tags.
- **Frozen and adapted parts** are read from the other trainer's name patterns by the module names of the model's family; of an unknown
  family it says so, and `foveate check` shows the parts table.
- **Batches.** A step trains on `batch.size` conversations whatever the number of processes. LLaMA-Factory's setting is per process:
  `--nproc` says how many it ran on. A packed recipe counts packs, so its batch size is left for you to multiply.
- **Too long conversations** are never cut: they are set aside by name, and `data.max_bad` says how many may be.
- **Variables** (`${oc.env:NAME,default}`, `${NAME}`, `$NAME`) stay variables where a text is taken over; where a number is worked out
  from one, it must be set.
- A relative path of the old recipe is relative to the folder that you start the command in.
- YAML is read strictly, without anchors and tags. Bare `yes`, `no`, `on`, `off` are booleans, as both trainers read them.
"""


def page() -> str:
    """The whole page."""
    meanings = "\n".join(f"| `{state}` | {meaning} |" for state, meaning in STATES.items())
    return "\n".join(
        [
            INTRO + "| | |\n|---|---|\n" + meanings + "\n",
            NOTES,
            "## NeMo Automodel\n",
            "`*` stands for any rest of a key. Keys not listed are reported as unknown.\n",
            _table(AUTOMODEL),
            "## LLaMA-Factory\n",
            _table(LLAMAFACTORY),
        ]
    )


def _table(rows: Sequence[Row]) -> str:
    lines = ["| key | Foveate | |", "|---|---|---|"]
    for row in rows:
        keys = ", ".join(f"`{key}`" for key in row.keys.split())
        what = f"`{row.to}`" if row.to else f"({row.state})"
        lines.append(f"| {keys} | {what} | {row.why} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(write_or_compare(PAGE, page(), "make_migrate.py", sys.argv[1:]))
