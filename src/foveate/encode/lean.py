"""The short way from an image to Qwen-VL's patches: resized as bytes, cut into patches as bytes, and made numbers by the model's device.

The image processor of Qwen2-VL and its successors normalises to float32 and repeats every patch in time, 8 bytes for each byte that
it was given. Here its steps up to the resizing are taken without a copy, what comes after is left to `PixelForm`, and the processor is
used for everything else. It is held against the processor itself on probe images before it is used at all; where anything differs, the
processor keeps the work.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BatchFeature, ProcessorMixin
    from transformers.image_processing_utils import BaseImageProcessor

VERSION = 1  # raise when the same image would give other bytes
_CLASS = ("transformers.models.qwen2_vl.image_processing_qwen2_vl", "Qwen2VLImageProcessor")
# What the short way does, and what it does not do; any other setting is the processor's own business.
_ASSUMED = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True, "resample": 3}  # 3: bicubic
_PROBES = ((97, 131), (20, 31), (112, 168))  # heights and widths: resized, enlarged, and (patches of 14) as they are
_LAYOUTS = (*_PROBES, (1, 40), (480, 640), (3000, 4001), (9, 1700), (70_000, 400), (2, 2000))  # the last is refused by most
_CACHED = 256  # patches whose numbers stay in a core's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelForm:
    """What patches of bytes stand for: [patches, size * size * 3], each row by row, red, green and blue of a pixel together.

    `mean` and `std` are in units of 0..255; the patch is repeated `frames` times, as the model wants it.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    frames: int

    @property
    def width(self) -> int:
        """Bytes of a patch."""
        return 3 * self.size**2

    def widen(self, patches: Tensor) -> Tensor:
        """0..255, [patches, size * size * 3] -> [patches, 3 * frames * size * size], those of the processor.

        Computed in float32; bytes become float32, and what a model has cast to its own type stays of that type.
        """
        area, type_ = self.size**2, patches.dtype if patches.is_floating_point() else torch.float32
        mean, std = (torch.tensor(values, dtype=torch.float32, device=patches.device).repeat(area) for values in (self.mean, self.std))
        wide = torch.empty(len(patches), 3, self.frames, area, dtype=type_, device=patches.device)
        part = _CACHED if patches.device.type == "cpu" else max(1, len(patches))
        for some, into in zip(patches.split(part), wide.split(part), strict=True):
            pixels = (some.to(torch.float32) - mean).div_(std).view(-1, area, 3)
            into[:, :, 0] = pixels.transpose(1, 2)
            into[:, :, 1:] = into[:, :, :1]
        return wide.view(len(patches), -1)


def lean_images(processor: ProcessorMixin) -> tuple[BaseImageProcessor | None, str]:
    """An image processor to put in the place of `processor.image_processor`, and an empty string; or None and why not.

    It takes what that one takes, arrays [height, width, 3] and tensors without content (on torch's meta device) among them, and gives
    `pixel_values` as uint8 patches; its `form` says what they stand for. The processor that was given stays as it was.
    """
    own = vars(processor).get("image_processor")
    if own is None or (type(own).__module__, type(own).__name__) != _CLASS:
        return None, _note(f"it is a {type(own).__name__}")
    settings = own.to_dict()
    others = {name for name, value in settings.items() if name.startswith("do_") and value and name not in _ASSUMED}
    others |= {name for name, value in _ASSUMED.items() if settings.get(name) != value}
    if others:
        return None, _note(f"it has {', '.join(f'{name}={settings.get(name)}' for name in sorted(others))}")
    if own.temporal_patch_size < 2:  # patches of bytes could not be told from the processor's own by their width
        return None, _note(f"it has temporal_patch_size={own.temporal_patch_size}")
    lean = copy.copy(own)
    lean.__class__ = type("Lean", (_Lean, type(own)), {})
    factor = 1.0 / own.rescale_factor
    lean.form = PixelForm(
        # In the processor's own float32 arithmetic, so that the results are its to the last bit.
        mean=tuple((torch.tensor(own.image_mean) * factor).tolist()),
        std=tuple((torch.tensor(own.image_std) * factor).tolist()),
        size=own.patch_size,
        frames=own.temporal_patch_size,
    )
    difference = _difference(processor, lean)
    return (None, _note(difference)) if difference else (lean, "")


def _note(why: str) -> str:
    return f"images take the way of the model's own image processor, which is slower ({why})"


class _Lean:
    """Mixed into the image processor's own class."""

    form: PixelForm

    def __call__(self, images: Any, *args: Any, return_tensors: str | None = None, **options: Any) -> BatchFeature:
        from transformers import BatchFeature

        given = [*map(str, args), *sorted(name for name, value in options.items() if value is not None)]
        if given:
            raise TypeError(f"the processor calls it with {', '.join(given)}")
        patches, grids = [], []
        for image in _flat(images):
            height, width = image.shape[-2:] if isinstance(image, Tensor) else _array(image).shape[:2]
            rows, columns = self.grid(height, width)
            grids.append((1, rows, columns))
            if isinstance(image, Tensor):
                patches.append(torch.empty(rows * columns, self.form.width, dtype=torch.uint8, device=image.device))
            else:
                patches.append(_cut(self._resized(_array(image), rows, columns), self.patch_size, self.merge_size))
        data = {"pixel_values": patches[0] if len(patches) == 1 else torch.cat(patches), "image_grid_thw": torch.tensor(grids)}
        return BatchFeature(data=data, tensor_type=return_tensors)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches, by the processor's own arithmetic. Raises its ValueError for shapes that it refuses."""
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

        high, wide = smart_resize(
            height,
            width,
            factor=self.patch_size * self.merge_size,
            min_pixels=self.size["shortest_edge"],
            max_pixels=self.size["longest_edge"],
        )
        return high // self.patch_size, wide // self.patch_size

    def _resized(self, pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """[height, width, 3] -> [rows * patch_size, columns * patch_size, 3], uint8."""
        size = (rows * self.patch_size, columns * self.patch_size)
        if pixels.shape[:2] == size:
            return pixels
        # torch's fast path for bytes takes pixels whose channels lie together, told by the strides of all four axes.
        held = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
        return functional.interpolate(held, size=size, mode="bicubic", antialias=True)[0].permute(1, 2, 0).contiguous().numpy()


def _cut(pixels: np.ndarray, size: int, merge: int) -> Tensor:
    """[height, width, 3] uint8 -> [patches, size * size * 3], the patches that are merged into one token (`merge` squared) together."""
    height, width, _ = pixels.shape
    rows, columns = height // size, width // size
    # A line of a patch is moved as one item, 14 times fewer than pixels.
    lines = np.ascontiguousarray(pixels).reshape(height, columns, size * 3).view(f"V{size * 3}")
    blocks = np.ascontiguousarray(lines.reshape(rows // merge, merge, size, columns // merge, merge).transpose(0, 3, 1, 4, 2))
    return torch.from_numpy(blocks.view(np.uint8).reshape(rows * columns, size * size * 3))


def _difference(processor: ProcessorMixin, lean: BaseImageProcessor) -> str:
    """In what the short way differs from the whole processor, that is from its image processor as it calls it; empty if in nothing."""
    ours = copy.copy(processor)
    ours.image_processor = lean
    noise = np.random.default_rng(0)
    for height, width in _PROBES:
        probe = noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
        try:
            wanted, found = (one(images=[probe], return_tensors="pt") for one in (processor, ours))
        except (ValueError, TypeError, LookupError) as error:  # a processor that can't be used says so to the encoder, in its own time
            return str(error)
        if set(wanted) != set(found) or not torch.equal(wanted["image_grid_thw"], found["image_grid_thw"]):
            return "its outputs are others"
        pixels = lean.form.widen(found["pixel_values"])
        if pixels.shape != wanted["pixel_values"].shape or pixels.dtype != wanted["pixel_values"].dtype:
            return "its patches have another shape"
        apart = (pixels - wanted["pixel_values"]).abs().view(len(pixels), 3, -1).amax(dim=(0, 2)) * torch.tensor(lean.form.std)
        if float(apart.max()) > 1.01:  # of 255
            return f"its pixels are up to {float(apart.max()):.1f}/255 away"
    for height, width in _LAYOUTS:
        blank = torch.empty(3, height, width, dtype=torch.uint8, device="meta")
        if _layout(processor, blank) != _layout(ours, blank):
            return "its patches are laid out in another way"
    return ""


def _layout(processor: ProcessorMixin, blank: Tensor) -> list[list[int]] | str:
    try:
        return processor(images=[blank], return_tensors="pt")["image_grid_thw"].tolist()
    except ValueError as refusal:
        return str(refusal)


def _flat(images: Any) -> list[Any]:
    if not isinstance(images, (list, tuple)):
        return [images]
    return [image for row in images for image in _flat(row)]


def _array(image: np.ndarray | Image) -> np.ndarray:
    # Two steps where it is a picture: `asarray` of one is read-only, which torch warns of.
    return image if isinstance(image, np.ndarray) else np.array(image)
