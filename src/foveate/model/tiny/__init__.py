"""Tiny random-weight models of the families, each of its real architecture, with a tokenizer, processor and chat template made here.

`build(name)` gives (model, processor) in about a second, from no file and no hub; `save(name, folder)` writes them as a Hugging Face
folder. Weights are the same on every call. Names are model types, but for variants such as `smolvlm_split`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from foveate.model.base_files import usual_modes
from foveate.model.load import prepare_transformers
from foveate.model.mend import mend
from foveate.model.tiny.base import Build
from foveate.model.tiny.unbuilt import UNBUILT

__all__ = ["BUILDS", "UNBUILT", "build", "processor", "save"]

_MODULES = (
    "audio cohere crops deepseek gemma glm granite grids idefics intern liquid llava "
    "meta minicpm mistral mrope older others phi qwen_omni qwen_vl"
).split()
BUILDS: dict[str, Build] = {
    name: build for module in _MODULES for name, build in sorted(vars(import_module(f"{__name__}.{module}"))["BUILDS"].items())
}


def build(name: str) -> tuple[Any, Any]:
    """(model, processor) of a family: float32, on the CPU, in training mode. Raises KeyError for a name not in `BUILDS`."""
    prepare_transformers()
    import torch

    model_class, config, made = BUILDS[name]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
        # Some families start a projector or a gate at zero, which would hide whatever goes wrong behind it.
        for parameter in model.parameters():
            if (parameter.ndim > 1 or parameter.numel() == 1) and not bool(parameter.any()):
                torch.nn.init.normal_(parameter, std=0.02 if parameter.ndim > 1 else 1.0)
        return mend(model), made


def processor(name: str) -> Any:
    """The processor alone: no model is built."""
    prepare_transformers()
    return BUILDS[name]()[2]


def save(name: str, folder: Path | str) -> Path:
    """Writes the family's model and processor to `folder`, as `from_pretrained` reads them."""
    model, its_processor = build(name)
    model.save_pretrained(folder)
    its_processor.save_pretrained(folder)
    usual_modes(Path(folder))
    return Path(folder)
