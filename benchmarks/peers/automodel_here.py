"""Runs NeMo Automodel's command line in this process, on a CPU.

    python automodel_here.py CONFIG.yaml

Its launcher counts GPUs to know how many processes to start; told that it is such a process already, it starts none. Two questions about
GPU memory, which its recipe asks unguarded, are answered with nothing. Seen with nemo-automodel 0.7.0.
"""

import os
import sys

os.environ.update(
    RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="bench"
)

import torch  # noqa: E402

torch.cuda.reset_peak_memory_stats = lambda *args, **kwargs: None
torch.cuda.max_memory_allocated = lambda *args, **kwargs: 0

from nemo_automodel.cli.app import main  # noqa: E402

sys.argv[0] = "automodel"
sys.exit(main())
