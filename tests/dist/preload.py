"""Imported once by the server that the test processes are forked from."""

from foveate.model.load import prepare_transformers

prepare_transformers()

import peft  # noqa: E402, F401
import torch.distributed.checkpoint  # noqa: E402, F401
import torch.distributed.fsdp  # noqa: E402, F401
import transformers.modeling_utils  # noqa: E402, F401
