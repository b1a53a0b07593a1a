"""Loads models and processors: the one place that knows Hugging Face's Auto classes and what must be mended before them."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import logging
import os
import sys
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from foveate.config.model import ModelSection
from foveate.errors import ModelError
from foveate.model.families import TRAINED_PARTS, Family, family_of
from foveate.model.headers import require_whole_files
from foveate.model.late import import_sparingly
from foveate.model.mend import mend
from foveate.model.quantize import check_quantised, keep_layout, quantiser

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

EMBEDDED = "foveate:tiny"
_SAMPLE = 1 << 16  # bytes
_MENDED: list[str] = []  # packages that import only thanks to this module
_SHIM: list[torch.library.Library] = []  # keeps the operators registered for the life of the process


def prepare_transformers() -> None:
    """Make transformers importable and quiet; call before its image classes are imported. Idempotent.

    PyPI's torchvision is built for CUDA; beside a CPU torch its import fails on two missing operators, and its mere presence
    then breaks transformers. Defining them mends it (`ops.nms` itself stays unusable, and nothing here calls it). Seen with
    torchvision 0.28; can go once its wheels import beside any torch: https://github.com/pytorch/vision/issues/9077
    """
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is not None:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            library = torch.library.Library("torchvision", "DEF")
            library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _SHIM.append(library)
            _MENDED.append("torchvision")
            importlib.import_module("torchvision")
    _prepare_torchaudio()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # forked data workers would only warn about it
    for name in ("torchao", "bitsandbytes", "torch.utils._pytree"):  # where installed, they tell of kernels for other machines
        logging.getLogger(name).setLevel(logging.ERROR)
    import transformers

    import_sparingly()
    # PEFT asks transformers by names that it is about to rename; nothing a user could mend. Seen with peft 0.21 and transformers 5.23;
    # can go once peft asks by the new ones.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def _prepare_torchaudio() -> None:
    """The same for torchaudio, whose own operators (aligning, filtering) some speech processors import and do not use.

    Beside a CPU torch its compiled library can't be loaded; torchaudio works without one where there is none, so it is told so.
    Seen with torchaudio 2.11; can go once its `_extension._load_lib` takes a library that can't be loaded for none.
    """
    if "torchaudio" in sys.modules or importlib.util.find_spec("torchaudio") is None:
        return
    try:
        importlib.import_module("torchaudio")
    except OSError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        utils = types.ModuleType("torchaudio._extension.utils")
        utils.__dict__.update(_load_lib=lambda name: False, _check_cuda_version=None, _init_dll_path=None)
        sys.modules[utils.__name__] = utils
        _MENDED.append("torchaudio")
        importlib.import_module("torchaudio")


def mended_imports() -> tuple[str, ...]:
    """A line for each package that imports here only because `prepare_transformers` mends it: the code on a model card has no such help."""
    return tuple(f"the card's code needs a {name} that imports beside its torch; the one here does not by itself" for name in _MENDED)


def resolve_id(section: ModelSection) -> str:
    """The folder or hub id behind `model.id`."""
    if section.id == EMBEDDED:
        return str(Path(__file__).parent.parent / "embedded" / "tiny_smolvlm")
    return section.id


def load_config(section: ModelSection) -> PretrainedConfig:
    """The configuration of the model, or of the part of it that is trained (see `Family.trained`), without weights. Raises ModelError."""
    prepare_transformers()
    from transformers import AutoConfig

    config = _from_pretrained(AutoConfig, section, what="config.json")
    part = family_of(config).trained
    return config if part is None else config.__dict__[f"{part}_config"]


def load_processor(section: ModelSection, *, multimodal: bool = True) -> ProcessorMixin:
    """The processor with the recipe's pixel limits and settings put in, so that they are saved with it.

    Raises ModelError; also where `multimodal` is asked for and the folder holds only a tokenizer or an image processor.
    """
    prepare_transformers()
    from transformers import AutoProcessor, ProcessorMixin

    processor = _from_pretrained(AutoProcessor, section, what="processor")
    if not isinstance(processor, ProcessorMixin):
        if not multimodal:
            return processor
        raise ModelError(
            f"has no multimodal processor (found only a {type(processor).__name__})",
            where=section.id,
            fix="copy preprocessor_config.json and processor_config.json of the base model into the folder",
        )
    processor = _mended(processor, family_of(load_config(section)))
    _apply_pixel_settings(processor, section)
    return processor


def saved_processor(folder: Path, config: PretrainedConfig, *, trust_remote_code: bool = False) -> ProcessorMixin:
    """The processor of a written folder, as `load_processor` gives it; the folder may hold adapters and no model.

    Args:
        config: of the model that was trained, whose family tells what its processor needs.
    Raises ModelError where it can't be loaded.
    """
    prepare_transformers()
    from transformers import AutoProcessor, ProcessorMixin

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
        fix = "report it, with the name of the model"
        raise ModelError(f"the written processor can't be loaded: {_first_line(error)}", where=str(folder), fix=fix) from error
    return _mended(processor, family_of(config)) if isinstance(processor, ProcessorMixin) else processor


def keeps_template(processor: ProcessorMixin) -> bool:
    """Whether transformers gives a saved processor of this class its chat template back; where not, its tokenizer alone has it."""
    from transformers import ProcessorMixin

    return not isinstance(processor, ProcessorMixin) or "chat_template" in inspect.signature(type(processor)).parameters


def load_model(section: ModelSection, *, compute: torch.dtype | None = None) -> PreTrainedModel:
    """The model with its weights on the CPU, and the attention of the section. Raises ModelError, naming keys that the checkpoint lacks.

    Args:
        compute: the type that products with quantised weights are computed in; that of the other weights when None.
    """
    prepare_transformers()
    config = load_config(section)
    dtype = section.dtype if section.dtype == "auto" else torch_dtype(section.dtype)
    options = {"config": config} if config.model_type in TRAINED_PARTS else {}
    if section.quantize is not None:
        compute = compute or (config.dtype if section.dtype == "auto" else dtype) or torch.float32
        options["quantization_config"] = quantiser(load_skeleton(section), section.quantize, compute=compute)
    model, info = _from_pretrained(
        _auto_class(config),
        section,
        what="weights",
        dtype=dtype,
        # Left to transformers, it is SDPA in every part that knows it, and eager in the few that don't (SAM's relative positions, Gemma4's
        # audio tower); asked for by name, PreTrainedModel refuses it for the whole. transformers 5.23; can go once it asks each part.
        attn_implementation="eager" if section.attention == "eager" else None,
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    missing = sorted(key for key in info["missing_keys"] if key not in set(model._tied_weights_keys or ()))
    if missing:
        raise ModelError(
            f"{len(missing)} weights are not in the checkpoint and would be random: {', '.join(missing[:5])}",
            where=section.id,
            fix="use a complete checkpoint of this architecture",
        )
    if section.quantize is not None:
        check_quantised(model, section.quantize)
    keep_layout(model)
    return mend(model)


def weights_fingerprint(section: ModelSection, config: PretrainedConfig) -> str:
    """Changes when the base weights do: the hub's commit, or the size and a few samples of each safetensors file of a folder.

    Whole files are not read, since they may be hundreds of gigabytes; weights that were trained further differ in every sample.
    """
    folder = Path(resolve_id(section))
    if not folder.is_dir():
        return str(config._commit_hash)
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for eighth in range(8):
                file.seek(max(0, size * (eighth + 1) // 8 - _SAMPLE))
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def load_skeleton(section: ModelSection) -> PreTrainedModel:
    """The model's module tree with its parameters on the meta device: names and shapes, no weights and no memory."""
    config = load_config(section)
    with torch.device("meta"):
        return _auto_class(config).from_config(config, trust_remote_code=section.trust_remote_code)


def random_model(config: PretrainedConfig, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """A model of a configuration with random weights, on the current default device."""
    return _auto_class(config).from_config(config, trust_remote_code=trust_remote_code)


def _auto_class(config: PretrainedConfig) -> type:
    from transformers import AutoModelForImageTextToText, AutoModelForMultimodalLM

    return AutoModelForImageTextToText if auto_class_name(config) == "AutoModelForImageTextToText" else AutoModelForMultimodalLM


def auto_class_name(config: PretrainedConfig) -> str:
    """The Auto class that loads a model of this configuration."""
    from transformers import AutoModelForImageTextToText

    return "AutoModelForImageTextToText" if type(config) in AutoModelForImageTextToText._model_mapping else "AutoModelForMultimodalLM"


def torch_dtype(name: str) -> torch.dtype:
    """`bfloat16` -> torch.bfloat16."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _from_pretrained(auto: type, section: ModelSection, *, what: str, **options):
    name = resolve_id(section)
    is_local = Path(name).is_dir()
    if not is_local and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError("no such model folder", where=name, fix="check `model.id`: a folder, or a hub id such as `org/name`")
    if is_local and not (Path(name) / "config.json").is_file():
        raise ModelError("the model folder holds no config.json", where=name, fix="point `model.id` at a Hugging Face model folder")
    try:
        return auto.from_pretrained(
            name,
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
            local_files_only=section.offline or is_local,
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError, TypeError, json.JSONDecodeError, SafetensorError) as error:
        if is_local and isinstance(error, SafetensorError):
            require_whole_files(Path(name))
        raise ModelError(
            f"{what} can't be loaded: {_first_line(error)}", where=section.id, fix=_fix_for(error, section, is_local)
        ) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def looked_first(section: ModelSection) -> str:
    """For an id that is likelier a mistyped folder than a hub id: where it was looked for before the hub; else empty."""
    if "/" in section.id:
        return ""
    return f"no folder {section.id!r} is beside the recipe (for an override: in the current folder), and hub ids read `org/name`; "


def _fix_for(error: BaseException, section: ModelSection, is_local: bool) -> str:
    if isinstance(error, ImportError):
        return "install the package that it names"
    if is_local:
        return "check that the folder is a complete Hugging Face model folder (config, safetensors, tokenizer, processor)"
    first = looked_first(section)
    if section.offline or os.environ.get("HF_HUB_OFFLINE"):
        return f"{first}it is not in the local cache: run `hf download {section.id}` on a machine with network, or name a local folder"
    return f"{first}check the id and the network; a gated model needs `hf auth login`"


def _mended(processor: ProcessorMixin, family: Family) -> ProcessorMixin:
    """With what loading loses, or transformers lacks for the family."""
    if family.processor is not None:
        processor = importlib.import_module(family.processor).adapt(processor)
    # Phi4MultimodalProcessor's constructor takes no `chat_template`, so it loses it on reload while its tokenizer keeps it. transformers
    # 5.23; can go once it takes one.
    if processor.chat_template is None:
        processor.chat_template = processor.tokenizer.chat_template
    if processor.chat_template is None:
        processor.chat_template = family.chat_template
    _forget_lengths(processor)
    return processor


def _forget_lengths(processor: ProcessorMixin) -> None:
    """A tokenizer.json that was saved after a padded call says to which length, None.

    ProcessorMixin hands that on to feature extractors as if it had been asked for, and Gemma4AudioFeatureExtractor then refuses every
    sound. transformers 5.23; can go once it hands a tokenizer's settings to the tokenizer alone.
    """
    if processor.tokenizer.init_kwargs.get("max_length", 0) is None:
        del processor.tokenizer.init_kwargs["max_length"]


def _apply_pixel_settings(processor: ProcessorMixin, section: ModelSection) -> None:
    wanted = dict(section.processor)
    if section.min_pixels is None and section.max_pixels is None and not wanted:
        return
    images = processor.__dict__.get("image_processor")
    if images is None:
        raise ModelError("min_pixels, max_pixels and processor need a model that takes images", where=section.id, fix="remove them")
    known = set(images.to_dict())
    if section.min_pixels is not None or section.max_pixels is not None:
        size = dict(images.to_dict().get("size") or {})
        if not {"shortest_edge", "longest_edge"} <= set(size) or "patch_size" not in known:
            raise ModelError(
                f"this processor has no pixel limits (its size is {size})",
                where=section.id,
                fix="use `model.processor: {size: ...}`, or `max_pixels` on the data source",
            )
        # Qwen-style processors name their pixel limits shortest_edge and longest_edge.
        size["shortest_edge"] = section.min_pixels or min(size["shortest_edge"], section.max_pixels or size["shortest_edge"])
        size["longest_edge"] = section.max_pixels or size["longest_edge"]
        wanted["size"] = {**size, **wanted.get("size", {})}
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise ModelError(
            f"the image processor has no setting {', '.join(unknown)}", where=section.id, fix=f"it has: {', '.join(sorted(known))}"
        )
    processor.image_processor = type(images).from_dict({**images.to_dict(), **wanted})
