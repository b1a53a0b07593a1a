"""What is known of graphics cards: memory, what they compute and move in a second, and what an hour of one costs about.

Peaks are the makers' figures for dense bfloat16 products; memory is what torch reports as the card's. Prices are what on-demand clouds
asked for at the end of 2025, rounded: an assumption, to be replaced by one's own (`foveate plan --price`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A card, or one of the several that a machine has."""

    name: str
    memory_gib: float
    tflops: float  # dense bfloat16 products, in 1e12 operations a second
    gbps: float  # memory bandwidth, in 1e9 bytes a second
    usd_per_hour: float

    @property
    def memory_bytes(self) -> int:
        """What torch reports as its memory."""
        return int(self.memory_gib * 2**30)

    @property
    def flops_per_s(self) -> float:
        """Peak, in operations a second."""
        return self.tflops * 1e12


def _gpu(name: str, memory_gib: float, tflops: float, gbps: float, usd_per_hour: float) -> Gpu:
    return Gpu(name=name, memory_gib=memory_gib, tflops=tflops, gbps=gbps, usd_per_hour=usd_per_hour)


GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("b300", 268.0, 2250.0, 8000.0, 7.0),
        _gpu("b200", 178.4, 2250.0, 8000.0, 5.5),
        _gpu("h200", 139.8, 989.0, 4800.0, 3.5),
        _gpu("h100", 79.2, 989.0, 3350.0, 2.5),
        _gpu("h100-nvl", 93.1, 835.0, 3900.0, 2.5),
        _gpu("h100-pcie", 79.2, 756.0, 2000.0, 2.2),
        _gpu("h20", 95.6, 148.0, 4000.0, 1.5),
        _gpu("a100-80", 79.2, 312.0, 2039.0, 1.6),
        _gpu("a100-40", 39.4, 312.0, 1555.0, 1.3),
        _gpu("l40s", 44.4, 362.0, 864.0, 1.0),
        _gpu("l40", 44.4, 181.0, 864.0, 0.9),
        _gpu("l4", 22.0, 121.0, 300.0, 0.6),
        _gpu("a40", 44.4, 149.7, 696.0, 0.5),
        _gpu("a10", 22.0, 125.0, 600.0, 0.7),
        _gpu("a10g", 22.0, 70.0, 600.0, 1.0),
        _gpu("rtx-pro-6000", 94.9, 503.0, 1792.0, 1.8),
        _gpu("rtx-6000-ada", 47.4, 364.0, 960.0, 0.8),
        _gpu("a6000", 47.4, 154.8, 768.0, 0.5),
        _gpu("5090", 31.4, 209.5, 1792.0, 0.7),
        _gpu("4090", 23.6, 165.2, 1008.0, 0.4),
        _gpu("3090", 23.6, 71.0, 936.0, 0.25),
        _gpu("mi300x", 191.7, 1307.0, 5300.0, 2.5),
        _gpu("mi325x", 255.7, 1307.0, 6000.0, 3.0),
    )
}
# What a driver calls a card, in words that all must be there -> its name here; the first that fits.
_DRIVER_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("b300",), "b300"),
    (("b200",), "b200"),
    (("h200",), "h200"),
    (("h100", "nvl"), "h100-nvl"),
    (("h100", "pcie"), "h100-pcie"),
    (("h100",), "h100"),
    (("h20",), "h20"),
    (("a100", "40gb"), "a100-40"),
    (("a100",), "a100-80"),
    (("l40s",), "l40s"),
    (("l40",), "l40"),
    (("l4",), "l4"),
    (("a40",), "a40"),
    (("a10g",), "a10g"),
    (("a10",), "a10"),
    (("rtx", "pro", "6000"), "rtx-pro-6000"),
    (("rtx", "6000", "ada"), "rtx-6000-ada"),
    (("rtx", "a6000"), "a6000"),
    (("rtx", "5090"), "5090"),
    (("rtx", "4090"), "4090"),
    (("rtx", "3090"), "3090"),
    (("mi300x",), "mi300x"),
    (("mi325x",), "mi325x"),
)


def known_gpu(driver_name: str) -> Gpu | None:
    """The card that a driver calls e.g. `NVIDIA H100 80GB HBM3`; None for one that is not in the table."""
    words = set(re.split(r"[^a-z0-9]+", driver_name.lower()))
    if "mig" in words or "laptop" in words:  # a part of a card, or a weaker one of the same name
        return None
    return next((GPUS[name] for needed, name in _DRIVER_NAMES if words.issuperset(needed)), None)
