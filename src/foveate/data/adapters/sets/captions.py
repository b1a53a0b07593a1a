"""Pictures and captions."""

from __future__ import annotations

from foveate.data.adapters.columns import Columns
from foveate.data.adapters.sets.base import NamedSet
from foveate.data.adapters.simple import CaptionAdapter
from foveate.data.sources.coco import open_coco
from foveate.types import Adapter


def _described(columns: Columns, prompt: str | None) -> Adapter:
    return CaptionAdapter(columns=columns, prompt="Describe this image." if prompt is None else prompt)


def _one_sentence(columns: Columns, prompt: str | None) -> Adapter:
    return CaptionAdapter(columns=columns, prompt="Provide a one-sentence caption for the provided image." if prompt is None else prompt)


SETS = {
    "rdr_items": NamedSet(
        hub="quintend/rdr-items", splits=("train",), build=_described, columns={"caption": ("text",), "image": ("image",)}
    ),
    "coco_captions": NamedSet(
        hub="lmms-lab/COCO-Caption2017", splits=("val",), hidden=("test",), build=_one_sentence,
        columns={"caption": ("answer", "captions"), "image": ("image", "file_name")}, open_file=open_coco,
        train="give COCO's own files: `path: annotations/captions_train2017.json` and `media_root: train2017`",
    ),
}  # fmt: skip
