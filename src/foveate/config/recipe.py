"""The whole recipe, and the rules that span sections."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foveate.config.base import Section
from foveate.config.batch import BatchSection
from foveate.config.data import DataSection
from foveate.config.media import MediaSection
from foveate.config.model import ModelSection
from foveate.config.optim import OptimSection
from foveate.config.train import EvaluateSection, ParallelSection, TrainSection
from foveate.config.tuning import TuningSection

LoggerName = Literal["tensorboard", "wandb", "mlflow"]


class Recipe(Section):
    """Everything a run depends on."""

    model: ModelSection = Field(default_factory=ModelSection, description="The base model.")
    tuning: TuningSection = Field(default_factory=TuningSection, description="What is trained.")
    data: DataSection = Field(description="Where the records come from.")
    media: MediaSection = Field(default_factory=MediaSection, description="Limits on images, sounds and clips.")
    batch: BatchSection = Field(default_factory=BatchSection, description="What one step is made of.")
    optim: OptimSection = Field(default_factory=OptimSection, description="The optimizer.")
    train: TrainSection = Field(default_factory=TrainSection, description="How long, and where it is kept.")
    evaluate: EvaluateSection = Field(default_factory=EvaluateSection, description="What is measured.")
    parallel: ParallelSection = Field(default_factory=ParallelSection, description="Several processes.")
    log: list[LoggerName] = Field(default_factory=list, description="Logging back ends beside metrics.jsonl and the report.")
