"""`data:` where the records come from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foveate.config.base import CodePath, FilePath, Section

FormatName = Literal["auto", "messages", "sharegpt", "alpaca", "qa", "multiple_choice", "caption", "ocr", "asr", "detection"]


class SourceSection(Section):
    """One source of records, named by `path`, `hub` or `use` (a set's local copy by `use` and `path`)."""

    path: FilePath | None = Field(
        None,
        description="A file of records (JSON, CSV, Parquet, Arrow, tar), a pattern such as `train-*.jsonl`, or a folder: of such files, of "
        "images, sounds or clips, or a saved data set.",
    )
    hub: str | None = Field(None, description="A Hugging Face data set by name, e.g. `naver-clova-ix/cord-v2`.")
    use: str | None = Field(
        None,
        description="A named set, e.g. medpix, docvqa, scienceqa, librispeech or tulu3: docs/data.md lists them all. With `path`, local "
        "files of that set's schema.",
    )
    name: str | None = Field(None, description="The hub data set's configuration name.")
    split: str | None = Field(None, description="Split, with an optional slice: `train`, `validation[:500]`, `train[10%:]`.")
    revision: str | None = Field(None, description="The hub data set's revision.")
    format: FormatName = Field("auto", description="The records' format; `auto` detects it from the columns and says which.")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Maps roles to columns, e.g. `{image: photo, question: q}`. The roles are in docs/data.md.",
    )
    adapter: CodePath | None = Field(
        None, description="`file.py:function` or `package.module:function`: row -> conversation. Runs once allowed."
    )
    prompt: str | None = Field(
        None, description="The user's turn where the data has none (captions, speech), `{column}` filled from the row."
    )
    system: str | None = Field(None, description="A system turn put before every conversation that has none.")
    media_root: FilePath | None = Field(
        None, description="Folder of relative media paths; the data file's own folder when unset (a hub data set has none)."
    )
    tags: dict[str, str] = Field(
        default_factory=dict,
        description="Names inside the turns where they are others than usual: the keys `role` and `content`, and the speakers `user`, "
        "`assistant`, `system` and `tool`, e.g. `{role: who, content: said, user: customer}`.",
    )
    boxes: Literal["norm1000", "norm1", "pixels"] = Field(
        "norm1000",
        description="How bounding boxes are written into the text: 0..1000 or 0..1 of the image's width and height, or its pixels.",
    )
    boxes_in: Literal["xyxy", "xywh"] | None = Field(
        None, description="How the data writes boxes: two corners, or a corner with width and height (COCO). Asked for where it matters."
    )
    labels: list[str] = Field(default_factory=list, description="The classes' names where the data holds their numbers, in order from 0.")
    weight: float = Field(1.0, gt=0, description="Copies of each record an epoch holds; 0.3 takes a fixed 30% of the records.")
    count: int | None = Field(None, gt=0, description="Records of this source an epoch holds, in place of `weight`.")
    limit: int | None = Field(None, gt=0, description="Use the first N records only.")
    rows: list[int] | None = Field(
        None, description="Use these records only, by their 0-based numbers after `split` and `limit`, e.g. `[0, 17]`."
    )
    streaming: bool = Field(
        False, description="Read a hub data set as it arrives instead of downloading it; it must be the only source of its split."
    )
    shuffle_buffer: int = Field(1000, gt=0, description="Records of a stream that are held and shuffled at a time.")
    max_pixels: int | None = Field(None, gt=0, description="Images with more pixels are shrunk to this before the processor sees them.")


class DataSection(Section):
    """Training and held-out data, and what to do with bad records."""

    train: list[SourceSection] = Field(min_length=1, description="Sources to train on.")
    eval: list[SourceSection] = Field(default_factory=list, description="Held-out sources; never trained on.")
    max_bad: int | str = Field(0, description="Bad records tolerated before the run stops: a count, or a share such as `1%`.")
    preflight: Literal["auto", "headers", "decode", "none"] = Field(
        "auto",
        description="How training records are checked before weights load: `auto` decodes up to 2,000 records and reads the headers of up "
        "to 100,000, of more those of 100,000 spread over all. Held-out ones that are measured are always decoded.",
    )
    collate: CodePath | None = Field(
        None,
        description="`file.py:function`: (conversations, processor) -> model inputs with labels, "
        "for models outside the Hugging Face contract.",
    )
    workers: int | Literal["auto"] = Field(
        "auto", description="Processes that prepare batches ahead; 0 prepares them in the training process."
    )
    prefetch_mb: int = Field(
        1024, gt=0, description="Most memory, in MB, of prepared batches that wait to be trained on; each worker may hold one step more."
    )
