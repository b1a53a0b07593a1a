"""What came of decoded media that are kept on disk (`media.cache_decoded`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, field

from foveate.batching.loader import StepData
from foveate.data.store import Counts
from foveate.dist.mesh import all_reduce_sum


@dataclass(slots=True, kw_only=True, eq=False)
class Decoded:
    """Adds up what the steps' data say; they are made in other processes."""

    counts: Counts = field(default_factory=Counts)

    def counting(self, steps: Iterator[StepData]) -> Iterator[StepData]:
        """The same steps, each counted as it is taken."""
        for data in steps:
            if data.decoded is not None:
                self.counts += data.decoded
            yield data

    def summary(self) -> str:
        """What the cache did in the steps that were trained, all ranks together; every rank must ask."""
        done = Counts.of(all_reduce_sum(astuple(self.counts)))
        if not done.found + done.missed:
            return "cached decoded media: none of the media are dear to decode (see media.cache_decoded)"
        damaged = f" (the files of {done.damaged:,} were damaged)" if done.damaged else ""
        return (
            f"cached decoded media: of {done.found + done.missed:,} media {done.found:,} ({done.found / (done.found + done.missed):.0%}) "
            f"were found and {done.missed:,} decoded{damaged}; {done.kept()}"
        )
