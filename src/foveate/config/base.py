"""What every section shares: unknown keys refused, values frozen once read, paths that know where they were written."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

PartName = Literal["vision", "projector", "language", "embeddings", "head"]

# Marks a string that names a file: the loader makes it absolute, relative to the recipe's folder when written in the
# recipe and to the current folder when given as an override.
FilePath = Annotated[str, Field(json_schema_extra={"foveate_path": "file"})]
# The same for a string that names a file only when that file exists (a model id may be a hub id, a template may be text).
MaybePath = Annotated[str, Field(json_schema_extra={"foveate_path": "maybe"})]
# `file.py:function` or `package.module:function`; runs only once allowed.
CodePath = Annotated[str, Field(json_schema_extra={"foveate_path": "code"})]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, no coercion from strings to other types, immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    replaced: ClassVar[Mapping[str, str]] = MappingProxyType({})  # field -> the one that takes its place where it is set
