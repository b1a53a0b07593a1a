"""Boxes in text: object detection as a question, and `<bbox>` and `<ref-object>` placeholders filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from foveate.data.adapters.columns import Columns, fill
from foveate.data.adapters.objects import Objects, class_name, objects_of, told_size, unknown_corners
from foveate.data.adapters.simple import dialogue
from foveate.data.boxes import BoxCorners, BoxWriter
from foveate.errors import DataError
from foveate.types import Adapter, Conversation, Image, Message, Row, Text

PROMPT = "Detect all objects in the image. Answer with a JSON list of their boxes (bbox_2d) and names (label)."
_PLACEHOLDER = re.compile(r"<(bbox|ref-object)>")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionAdapter:
    """Roles: image, objects (or bbox and category), width, height, system.

    The answer is `[{"bbox_2d": [left, top, right, bottom], "label": "..."}, ...]` in the order of the data, as Qwen's models write it
    (https://github.com/QwenLM/Qwen3-VL, cookbooks/spatial_understanding.ipynb); `[]` where there is nothing. `labels` are the names of
    class numbers.
    """

    columns: Columns
    prompt: str
    writer: BoxWriter
    corners: BoxCorners
    labels: tuple[str, ...] = ()

    def __call__(self, row: Row) -> Conversation:
        """The prompt about the image, and its objects as JSON."""
        images = self.columns.media(row).get("image", [])
        if len(images) != 1:
            raise DataError(f"{len(images)} images, and the boxes are of one", reason="image_missing", fix="give one image a record")
        found = objects_of(self.columns, row)
        if found is None:
            self.columns.need(row, "objects" if "objects" in self.columns.named else "bbox")
            raise DataError("the objects hold no list of boxes", reason="missing_field", fix="write `bbox` and `category` lists")
        if len(found.boxes) != len(found.names):
            raise DataError(
                f"{len(found.boxes)} boxes, but {len(found.names)} names", reason="bad_label", fix="give each box the name of its class"
            )
        names = [class_name(name, self.labels) for name in found.names]
        boxes = self.writer.write(
            found.boxes, images[0], corners=self.corners, told=told_size(self.columns, row, 0, 1), relative=found.relative
        )
        answer = json.dumps([{"bbox_2d": box, "label": name} for box, name in zip(boxes, names, strict=True)], ensure_ascii=False)
        return dialogue(self.columns, row, fill(self.prompt, row), answer, (answer,))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundedAdapter:
    """Another adapter's conversation with `<bbox>` and `<ref-object>` filled in from the row's objects, in order, over all turns.

    Boxes become `[left, top, right, bottom]`, points `[x, y]`. Where a row's objects are ms-swift's, or a column of boxes is named in
    `columns:` (`strict`), there must be a placeholder for each; else rows without placeholders pass as they are. Without objects, a
    placeholder is text. `image_id` says which image a box is of; the first one when it is left out.
    """

    adapter: Adapter
    columns: Columns
    writer: BoxWriter
    corners: BoxCorners | None
    strict: bool
    labels: tuple[str, ...] = ()

    def __call__(self, row: Row) -> Conversation:
        """DataError `placeholder_mismatch` when placeholders and objects differ in number; those of boxes and images."""
        found = self.adapter(row)
        objects = objects_of(self.columns, row)
        if objects is None:
            return found
        wanted = [name for message in found.messages for name in _PLACEHOLDER.findall(_text_of(message))]
        if not wanted and not objects.swift and not self.strict:
            return found
        for name, there in (("bbox", objects.boxes), ("ref-object", objects.names)):
            if wanted.count(name) != len(there) and (name == "bbox" or objects.swift or wanted.count(name)):
                raise DataError(
                    f"{len(there)} {'boxes' if name == 'bbox' else 'names'}, but {wanted.count(name)} <{name}> tags",
                    reason="placeholder_mismatch", fix=f"write one <{name}> for each",
                )  # fmt: skip
        texts = {"bbox": iter(self._boxes(objects, found, row)), "ref-object": iter(class_name(n, self.labels) for n in objects.names)}
        messages = tuple(_filled(message, texts) for message in found.messages)
        return replace(found, messages=messages, answers=_answers(found, messages[-1]))

    def _boxes(self, objects: Objects, found: Conversation, row: Row) -> list[str]:
        if not objects.boxes:
            return []
        corners = self.corners or ("xyxy" if objects.swift else None)
        if corners is None:
            raise unknown_corners("")
        images = [part for part in found.media if isinstance(part, Image)]
        ids = objects.image_ids or [0] * len(objects.boxes)
        if len(ids) != len(objects.boxes):
            raise DataError(f"{len(ids)} image_id for {len(objects.boxes)} boxes", reason="bad_box", fix="give each box its image's number")
        for number in ids:
            if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(images):
                raise DataError(
                    f"a box of image {number!r}, and there are {len(images)} images", reason="bad_box", fix="number images from 0"
                )
        written = [""] * len(ids)
        for number in dict.fromkeys(ids):  # an image's header is read once
            places = [place for place, its in enumerate(ids) if its == number]
            told = told_size(self.columns, row, number, len(images))
            boxes = self.writer.write(
                [objects.boxes[place] for place in places], images[number], corners=corners, told=told, relative=objects.relative
            )
            for place, box in zip(places, boxes, strict=True):
                written[place] = json.dumps(box)
        return written


def _text_of(message: Message) -> str:
    return "\n".join(part.text for part in message.parts if isinstance(part, Text))


def _filled(message: Message, texts: dict[str, Any]) -> Message:
    parts = [replace(p, text=_PLACEHOLDER.sub(lambda m: next(texts[m[1]]), p.text)) if isinstance(p, Text) else p for p in message.parts]
    return replace(message, parts=tuple(parts))


def _answers(before: Conversation, last: Message) -> Sequence[str]:
    """The accepted answers, where they are the last turn's own text."""
    old = before.messages[-1].text
    return tuple(last.text if answer == old else answer for answer in before.answers)
