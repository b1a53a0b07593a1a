"""Objects in images: their boxes and names, out of the layouts in use. Which numbers a box is made of is never guessed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foveate.data.adapters.columns import Columns
from foveate.data.adapters.parts import strip_nulls
from foveate.data.boxes import BoxCorners, is_finite
from foveate.data.json_text import read_json
from foveate.errors import DataError
from foveate.types import Row

BOX_KEYS = ("bbox", "bboxes", "boxes")
NAME_KEYS = ("ref", "category", "categories", "label", "labels", "name", "names", "class", "category_name", "category_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The objects of one record. `names` may be numbers of classes. `swift`: the layout is ms-swift's, whose boxes are two corners."""

    boxes: list[Any]
    names: list[Any]
    areas: list[Any]
    image_ids: list[Any]
    relative: bool = False  # boxes from 0 to 1
    swift: bool = False


def objects_of(columns: Columns, row: Row) -> Objects | None:
    """The row's objects: `objects` (a dict of lists, a list of dicts, or JSON text of either), else `bbox` and `category` columns.

    None when the row has neither, or its `objects` hold no boxes.
    """
    value = columns.get(row, "objects")
    if value is not None:
        return _from_objects(value)
    boxes = columns.get(row, "bbox")
    if boxes is None:
        return None
    boxes, names = strip_nulls(_parsed(boxes)), strip_nulls(_parsed(columns.get(row, "category")))
    if isinstance(boxes, list) and boxes and not isinstance(boxes[0], list):
        boxes = [boxes]  # one box
    names = [] if names is None else names if isinstance(names, list) else [names]
    return Objects(boxes=_listed(boxes), names=names, areas=[], image_ids=[])


def told_size(columns: Columns, row: Row, number: int, images: int) -> tuple[Any, Any] | None:
    """The (height, width) that the record gives for its image `number`; of several images only when it gives a list."""
    height, width = columns.get(row, "height"), columns.get(row, "width")
    if height is None or width is None:
        return None
    if isinstance(height, list) and isinstance(width, list):
        return (height[number], width[number]) if number < min(len(height), len(width)) else None
    return (height, width) if images == 1 else None


def corners_by_area(records: Iterable[Objects]) -> BoxCorners | None:
    """How the boxes are written, proven by the areas beside them: each box's own area under one reading, and not under the other."""
    fits = {"xyxy": True, "xywh": True}
    seen = 0
    for objects in records:
        for box, area in zip(objects.boxes, objects.areas, strict=False):
            if not _is_four(box) or not is_finite(area) or area <= 0:
                continue
            seen += 1
            fits["xywh"] &= math.isclose(box[2] * box[3], area, rel_tol=0.01, abs_tol=1.0)
            fits["xyxy"] &= math.isclose((box[2] - box[0]) * (box[3] - box[1]), area, rel_tol=0.01, abs_tol=1.0)
    if not seen or fits["xyxy"] == fits["xywh"]:
        return None
    return "xyxy" if fits["xyxy"] else "xywh"


def unknown_corners(where: str) -> DataError:
    """The question that a recipe must answer where the data does not."""
    return DataError(
        "how the boxes are written is not told by the data", reason="unknown_boxes", where=where,
        fix="write `boxes_in: xywh` (left, top, width, height, as COCO) or `boxes_in: xyxy` (left, top, right, bottom)",
    )  # fmt: skip


def class_name(value: Any, labels: Sequence[str]) -> str:
    """The name of an object's class. DataError `bad_label` for a number without a name."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(labels):
        return labels[value]
    if isinstance(value, int) and not isinstance(value, bool):
        names = f"there are {len(labels)} names" if labels else "the data has no names for its numbers"
        raise DataError(f"the class is {value}, and {names}", reason="bad_label", fix="list them in order: `labels: [cat, dog, ...]`")
    raise DataError(f"the class is {value!r}", reason="bad_label", fix="write its name")


def _from_objects(value: Any) -> Objects | None:
    value = _parsed(value)
    if isinstance(value, Sequence) and not isinstance(value, str) and value and all(isinstance(item, Mapping) for item in value):
        value = {key: [item.get(key) for item in value] for key in value[0]}
    if not isinstance(value, Mapping):
        return None
    key = next((key for key in BOX_KEYS if key in value), None)
    if key is None:
        return None
    kind = value.get("bbox_type") or "real"
    if kind not in ("real", "norm1"):
        raise DataError(f"bbox_type is {kind!r}", reason="bad_box", fix="bbox_type is real or norm1")
    named = [name for name in NAME_KEYS if strip_nulls(value.get(name))]
    # Names rather than numbers, where there are both.
    best = next((name for name in named if isinstance(_listed(value[name])[0], str)), named[0] if named else None)
    return Objects(
        boxes=_listed(strip_nulls(value[key])),
        names=_listed(strip_nulls(value[best])) if best else [],
        areas=_listed(strip_nulls(value.get("area"))),
        image_ids=_listed(strip_nulls(value.get("image_id"))),
        relative=kind == "norm1",
        swift="ref" in value or "bbox_type" in value,
    )


def _parsed(value: Any) -> Any:
    """JSON text as its value: cells of a table can hold nothing else."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return read_json(value)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the objects are no JSON: {error}", reason="bad_json", fix="mend or remove the record") from None


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise DataError(f"the objects hold a {type(value).__name__}, not a list", reason="wrong_type", fix="write lists of equal length")
    return list(value)


def _is_four(box: Any) -> bool:
    return isinstance(box, (list, tuple)) and len(box) == 4 and all(map(is_finite, box))
