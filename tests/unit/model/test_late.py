"""What transformers imports at its start and few need, in a process of its own: what was imported here before must not count."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import json, sys
from foveate.model.load import prepare_transformers
prepare_transformers()
from transformers import AutoModelForImageTextToText, AutoProcessor, ProcessorMixin
from transformers.loss import loss_for_object_detection as boxes
from transformers.utils import import_utils
import transformers.models
early = "scipy.optimize" in sys.modules
import_utils.define_import_structure.cache_clear()
import_utils.create_import_structure_from_path.cache_clear()
listed = import_utils.define_import_structure(transformers.models.__file__)
rows, columns = boxes.linear_sum_assignment([[4.0, 1.0], [2.0, 3.0]])
print(json.dumps({
    "early": early,
    "late": "scipy.optimize" in sys.modules,
    "pairs": [rows.tolist(), columns.tolist()],
    "models": {name for files in listed.values() for names in files.values() for name in names} <= set(dir(transformers.models)),
}))
"""


def test_scipy_is_imported_when_it_is_needed_and_all_models_are_there():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"early": False, "late": True, "pairs": [[0, 1], [1, 0]], "models": True}
