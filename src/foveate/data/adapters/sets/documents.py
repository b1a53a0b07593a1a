"""Pictures whose contents are written as JSON: receipts, products."""

from __future__ import annotations

from dataclasses import dataclass

from foveate.data.adapters.columns import Columns, fill
from foveate.data.adapters.ocr import OcrAdapter, write_json
from foveate.data.adapters.parts import text_value
from foveate.data.adapters.sets.base import NamedSet
from foveate.data.adapters.simple import dialogue
from foveate.errors import DataError
from foveate.types import Adapter, Conversation, Row

RECEIPT = "Read this receipt and write its contents as JSON."
PRODUCT = "Classify this product. Answer with JSON of the keys category, brand and is_secondhand; choose one of the possible categories."


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductAdapter:
    """A product's picture, title, description and possible categories; its category, brand and whether it is second-hand, as JSON.

    The task is that of MLPerf's vision-language benchmark, in words of our own. Without a `prompt`, the user's turn has a line for the
    title, the description and each category; what a record lacks is left out.
    """

    columns: Columns
    prompt: str | None

    def __call__(self, row: Row) -> Conversation:
        """DataError `wrong_type` when a field is of another type."""
        category = text_value(self.columns.need(row, "answer"), self.columns.named["answer"])
        if not category.strip():
            raise DataError(f"{self.columns.named['answer']!r} is empty", reason="empty_answer", fix="fill it in, or remove the record")
        brand, used = self.columns.get(row, "brand"), self.columns.get(row, "secondhand")
        if not isinstance(used, bool):
            raise DataError(
                f"{self.columns.named['secondhand']} is a {type(used).__name__}", reason="wrong_type", fix="write true or false"
            )
        brand = None if brand is None else text_value(brand, "the brand")
        answer = write_json({"category": category, "brand": brand, "is_secondhand": used})
        question = self._asked(row) if self.prompt is None else fill(self.prompt, row)
        return dialogue(self.columns, row, question, answer, (answer,))

    def _asked(self, row: Row) -> str:
        lines = [PRODUCT]
        for label, role in (("Title", "title"), ("Description", "description")):
            value = self.columns.get(row, role)
            text = "" if value is None else text_value(value, self.columns.named[role]).strip()
            if text:
                lines.append(f"{label}: {text}")
        choices = self.columns.get(row, "choices") or []
        if not isinstance(choices, (list, tuple)):
            column = self.columns.named["choices"]
            raise DataError(f"{column} is a {type(choices).__name__}", reason="wrong_type", fix="write a list of texts")
        if choices:
            lines += ["Possible categories:", *(f"- {text_value(choice, 'a category')}" for choice in choices)]
        return "\n".join(lines)


def _cord(columns: Columns, prompt: str | None) -> Adapter:
    """The parse as JSON, keys in the published order. Donut's own trainings write `<s_menu>` tags, which no chat model knows."""
    return OcrAdapter(columns=columns, prompt=RECEIPT if prompt is None else prompt, needs_parse=True)


def _product(columns: Columns, prompt: str | None) -> Adapter:
    return ProductAdapter(columns=columns, prompt=prompt)


SETS = {
    "cord_v2": NamedSet(
        hub="naver-clova-ix/cord-v2", splits=("train", "validation", "test"), build=_cord,
        columns={"ground_truth": ("ground_truth",), "image": ("image",)},
    ),
    "product_catalogue": NamedSet(
        hub="Shopify/product-catalogue", splits=("train", "test"), build=_product,
        columns={
            "title": ("product_title",), "description": ("product_description",), "choices": ("potential_product_categories",),
            "answer": ("ground_truth_category",), "brand": ("ground_truth_brand",), "secondhand": ("ground_truth_is_secondhand",),
            "image": ("product_image",),
        },
        empty=frozenset({"title", "description", "choices", "brand"}),
    ),
}  # fmt: skip
