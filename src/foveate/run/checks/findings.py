"""What a check found, as data: the terminal's tables and `--json` are made of it. Its JSON Schema is docs/check.schema.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from foveate.events import ModuleRow, Quarantined
from foveate.model.memory import Memory
from foveate.model.parts import PartRow

State = Literal["ok", "note", "warn", "bad", "unknown"]
SCHEMA = 1  # raised when a field is taken away or changes its meaning; new fields do not raise it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    `ok`: as it should be; `note`: worth knowing; `warn`: likely a mistake, training runs all the same; `bad`: training would stop;
    `unknown`: could not be looked at here.
    """

    state: State
    about: str  # the part of the recipe, e.g. data.train
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a histogram: records with `low` to `high` tokens, both included."""

    low: int
    high: int
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Exact token counts of all records whose length is known, those that are too long included."""

    records: int
    total: int
    p50: int
    p95: int
    p99: int
    longest: int
    too_long: int  # records above batch.max_tokens
    fits_all: int  # a batch.max_tokens that every record fits
    fits_most: int  # one that 99.9% of them fit
    histogram: list[Bar]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCheck:
    """One source of a split. `read` = `usable` + `bad` + `unchecked`."""

    name: str
    format: str
    read: int
    usable: int
    bad: int
    unchecked: int  # neither could be said: a package is missing, or labels can't be proven
    images: int
    audios: int
    videos: int
    tokens: Tokens | None
    max_pixels: int | None  # images of at most so many pixels let every too long record of it fit, as far as images can


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What the records make of a step, over the first steps of the plan."""

    steps: int  # looked at
    per_step: float  # rows (micro-batches), all ranks together
    samples: float  # records of a step
    fullest: int  # tokens of the longest row
    fill: float  # share of computed positions that are tokens of records


@dataclass(slots=True, kw_only=True)
class SplitCheck:
    """What was found in one split. `read` = `usable` + `bad` + `unchecked`."""

    read: int = 0
    usable: int = 0
    unchecked: int = 0
    bad: list[Quarantined] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)  # of the bad ones
    wrong_suffix: int = 0
    tokens: Tokens | None = None
    encoded: int = 0  # records encoded in full: pixels, labels
    encoded_tokens: int = 0
    supervised_tokens: int = 0  # trained ones among those
    longest_answer: int | None = None  # tokens; of the answers that have most characters
    rows: Rows | None = None
    duplicates: int = 0  # records that an earlier one equals, media included
    duplicate_ids: int = 0
    sources: list[SourceCheck] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A held-out record and the training record that it is like."""

    eval: str
    train: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leakage:
    """What the held-out split shares with the training split; counts are of held-out records."""

    compared: int
    same: int  # the whole conversation, media included
    same_media: int  # an image, sound or clip with the same content, in another conversation
    near_images: int | None  # an image that shows the same, saved otherwise; None where pictures were not compared
    near_unverified: int  # candidates beyond those that were looked at
    examples: dict[str, list[Pair]]  # same | same_media | near_images -> some pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Memory and time of the training, from the configuration and the machine that the check runs on."""

    device: str
    ranks: int
    strategy: str
    row_tokens: int  # tokens of the micro-batch that was traced, the fullest one of the plan's first steps
    memory: Memory  # bytes on each rank
    memory_total: int
    memory_there: int  # bytes of the device or machine
    checkpoint_bytes: int
    total_tokens: int  # of the whole run
    total_flops: float
    flops_per_s: float  # of matrix products here; training reaches a part of it
    least_time_s: float


def counted(count: int, one: str, many: str = "") -> str:
    """`1 record`, `2 records`; `many` where an s is not enough."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


@dataclass(slots=True, kw_only=True)
class Checked:
    """The result; `ok` where nothing is wrong (unknown is not wrong, a warning is not either)."""

    schema_version: int = SCHEMA
    findings: list[Finding] = field(default_factory=list)
    parts: list[PartRow] = field(default_factory=list)
    modules: list[ModuleRow] = field(default_factory=list)
    splits: dict[str, SplitCheck] = field(default_factory=dict)
    leakage: Leakage | None = None
    prediction: Prediction | None = None

    @property
    def ok(self) -> bool:
        """True where no finding is bad."""
        return all(finding.state != "bad" for finding in self.findings)

    @property
    def warned(self) -> bool:
        """True where some finding is a warning."""
        return any(finding.state == "warn" for finding in self.findings)

    def add(self, state: State, about: str, text: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(state=state, about=about, text=text))
