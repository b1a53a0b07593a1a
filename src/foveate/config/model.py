"""`model:` which weights, processor and template."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from foveate.config.base import MaybePath, Section


class ModelSection(Section):
    """The base model and how its processor sees media."""

    id: MaybePath = Field("foveate:tiny", description="Hub id, local folder, or `foveate:tiny`, the model that ships with Foveate.")
    revision: str | None = Field(None, description="Hub revision (commit, tag or branch); the commit is recorded with the run.")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "auto", description="Type of the weights in memory; `auto` keeps the checkpoint's own."
    )
    chat_template: MaybePath | None = Field(
        None, description="Overrides the chat template: the template itself, a .jinja file, or a JSON file with `chat_template`."
    )
    min_pixels: int | None = Field(None, gt=0, description="Lower pixel limit of the image processor; saved with the processor.")
    max_pixels: int | None = Field(None, gt=0, description="Upper pixel limit of the image processor; saved with the processor.")
    processor: dict[str, Any] = Field(
        default_factory=dict, description="Further image-processor settings by their own names, e.g. `do_image_splitting: false`."
    )
    attention: Literal["auto", "segments", "sdpa", "eager"] = Field(
        "auto", description="`segments` attends within each packed sample; `auto` takes it wherever the family packs."
    )
    trust_remote_code: bool = Field(False, description="Runs the repository's own code; needs `revision` to be a full commit.")
    offline: bool = Field(False, description="Never ask the hub: use local folders and the local cache only.")
