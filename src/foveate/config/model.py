"""`model:` which weights, processor and template."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from foveate.config.base import MaybePath, Section


class QuantizeSection(Section):
    """Frozen linear layers in 4 or 8 bits, under adapters that are trained in full precision (QLoRA, Dettmers et al., 2023)."""

    bits: Literal[4, 8] = Field(4, description="Bits of a weight.")
    backend: Literal["bitsandbytes", "torchao"] = Field(
        "bitsandbytes", description="The library whose layers are used; adapters over torchao need 8 bits."
    )
    type: Literal["nf4", "fp4"] = Field("nf4", description="With 4 bits: `nf4` suits weights that are normally distributed.")
    double: bool = Field(True, description="With 4 bits: quantise the scales as well, which saves 0.37 bits a weight.")
    parts: list[Literal["vision", "projector", "language", "head"]] = Field(
        default_factory=lambda: ["language"], description="Parts whose linear layers are quantised; a head tied to the embeddings can't be."
    )
    skip: list[str] = Field(default_factory=list, description="Names or wildcards of modules in these parts that are left as they are.")


class ModelSection(Section):
    """The base model and how its processor sees media."""

    id: MaybePath = Field("foveate:tiny", description="Hub id, local folder, or `foveate:tiny`, the model that ships with Foveate.")
    revision: str | None = Field(None, description="Hub revision (commit, tag or branch); the commit is recorded with the run.")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "auto", description="Type of the weights in memory; `auto` keeps the checkpoint's own."
    )
    quantize: QuantizeSection | None = Field(
        None, description="Holds frozen linear layers in 4 or 8 bits, for tuning.type lora: `{}` for 4 bits, `{bits: 8}`."
    )
    add_tokens: list[str] = Field(
        default_factory=list,
        description="Tokens that the tokenizer gets, e.g. `['<loc>']`; their embeddings start near the mean and are trained.",
    )
    add_special_tokens: list[str] = Field(
        default_factory=list, description="The same for special tokens, which are left out of decoded answers."
    )
    chat_template: MaybePath | None = Field(
        None, description="Overrides the chat template: the template itself, a .jinja file, or a JSON file with `chat_template`."
    )
    template_options: dict[str, Any] = Field(
        default_factory=dict,
        description="Variables of the chat template, in training and generation alike, e.g. `{enable_thinking: false}`.",
    )
    min_pixels: int | None = Field(None, gt=0, description="Lower pixel limit of the image processor; saved with the processor.")
    max_pixels: int | None = Field(None, gt=0, description="Upper pixel limit of the image processor; saved with the processor.")
    processor: dict[str, Any] = Field(
        default_factory=dict, description="Further image-processor settings by their own names, e.g. `do_image_splitting: false`."
    )
    attention: Literal["auto", "segments", "varlen", "flex", "sdpa", "eager"] = Field(
        "auto",
        description="How packed samples are kept apart: `segments` by a loop of SDPA calls, `varlen` by flash attention for rows of "
        "different lengths, `flex` by FlexAttention, both on a GPU only. `auto` takes the first of varlen, flex and segments that proves "
        "equal to SDPA on the device. `sdpa` and `eager` pack nothing.",
    )
    head: Literal["auto", "chunked", "cut_cross_entropy", "liger"] = Field(
        "auto",
        description="What computes the loss and its gradients from hidden states: Foveate's own code, a few positions at a time "
        "(`chunked`), or, on a GPU only, a kernel of the package cut-cross-entropy or liger-kernel (`foveate[kernels]`). `auto` takes the "
        "fastest that is installed and proves equal to Foveate's own on the device.",
    )
    trust_remote_code: bool = Field(False, description="Runs the repository's own code; needs `revision` to be a full commit.")
    offline: bool = Field(False, description="Never ask the hub: use local folders and the local cache only.")
