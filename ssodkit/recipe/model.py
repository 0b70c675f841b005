"""The recipe: everything a run is made of, as one validated, frozen model."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ssodkit.data.config import DataConfig
from ssodkit.data.views import ViewsConfig
from ssodkit.detectors.base import DetectorConfig
from ssodkit.methods.base import MethodConfig
from ssodkit.plugins import Config, Joined, Slot
from ssodkit.schedules.base import LearningRate

NAME = r"^[A-Za-z0-9_.-]+$"
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


RateFactor = Annotated[float, Field(gt=0.0, le=100.0)]


class OptimizerConfig(Config):
    """What every optimizer may do differently for some parameters."""

    backbone_lr: RateFactor = 1.0
    """Factor on the backbone's learning rate."""
    bias_lr: RateFactor = 1.0
    """Factor on that of biases, those of normalization excepted."""


class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent, one fused or foreach kernel per group."""

    type: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    nesterov: bool = False
    weight_decay: float = Field(1e-4, ge=0.0, le=10.0)
    decay: Literal["all", "weights"] = "all"
    """`weights` spares biases and normalization."""

    @model_validator(mode="after")
    def _nesterov_looks_along_the_momentum(self) -> "SgdConfig":
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("`nesterov` looks ahead along the momentum, which is 0: set a momentum, or leave it out")
        return self


class AdamWConfig(OptimizerConfig):
    """AdamW, one fused or foreach kernel per group."""

    type: Literal["adamw"] = "adamw"
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: float = Field(0.05, ge=0.0, le=10.0)
    decay: Literal["all", "weights"] = "weights"


class CheckpointConfig(Config):
    """What is kept of a run."""

    every: int = Field(1000, ge=1)
    """Steps."""
    keep: int = Field(2, ge=1)
    """The last few; older ones are deleted."""


class WandbConfig(Config):
    """Weights & Biases: only where a recipe says so; offline where there is no key."""

    project: str = "ssodkit"
    entity: str | None = None


class GalleryConfig(Config):
    """A few unlabeled images, the same each time, of which a run writes what is found, taught and true."""

    images: int = Field(32, ge=0)
    moments: int = Field(5, ge=1)
    """How often: at even distances, the last time at the run's end."""


class WatchConfig(Config):
    """What a run reports while it trains. `metrics.jsonl` is always written."""

    log_every: int = Field(20, ge=1)
    """Steps between two lines of metrics."""
    health_every: int = Field(50, ge=1)
    """Steps between two reports on the pseudo-labels, each over the steps since the last."""
    quiet_after: int = Field(500, ge=1)
    """Steps without any pseudo-box after which a warning says which filter removed how many."""
    pictures: int = Field(8, ge=0)
    """Images on the picture sheet."""
    gallery: GalleryConfig = GalleryConfig()
    wandb: WandbConfig | None = None


class EngineConfig(Config):
    """How long, how fast, in which precision."""

    steps: int = Field(ge=1)
    lr: LearningRate
    lr_for_images: int | None = Field(None, ge=1)
    """Images per step (labeled and unlabeled) for which `lr` holds; another batch scales it linearly. Null: as is."""
    optimizer: Annotated[SgdConfig | AdamWConfig, Field(discriminator="type")] = SgdConfig()
    clip_norm: float | None = Field(None, gt=0.0)
    """The most that all gradients together may measure; null: no limit."""
    clip_value: float | None = Field(None, gt=0.0)
    """The most that any one number of a gradient may be, either way, after `clip_norm`; null: no limit."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Of the networks' arithmetic; weights and losses are fp32. `auto`: bf16 on GPUs and CPUs that are made for it."""
    channels_last: bool = True
    compile: bool = False
    """Compile backbone and neck."""
    joined: Joined = "auto"
    """Labeled and unlabeled views in one forward; `auto`: where joining adds at most 10 % pixels."""
    images_per_device: int | None = Field(None, ge=1)
    """At most so many images in one forward; the rest of a step is accumulated. Null: no limit."""
    workers: int = Field(2, ge=0)
    """Loader processes beside each training process."""
    evaluate_every: int | None = Field(None, ge=1)
    """Steps; null: at the end only."""
    patience: int | None = Field(None, ge=1)
    """Evaluations in a row that are no better than the best one on the validation images, after which the training
    ends; null: it makes all its steps."""
    checkpoint: CheckpointConfig = CheckpointConfig()


class EvaluationConfig(Config):
    """How networks are scored."""

    result: Literal["student", "teacher"] = "teacher"
    """Which network is the run's result; both are scored and named."""
    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint is the run's result: what the test scores in the end, and `eval`, `predict` and `label` take.
    The best is that of the result's best AP on the validation images."""
    stands: Literal["best", "run", "control"] = "best"
    """After `run --compare`, what `predict`, `label`, `eval` and `load` use of the run: the best on held-out labels of
    student and teacher of the run and of its control, or the result of either."""
    metric: Literal["coco", "voc"] = "coco"
    """`voc` adds the 11-point metric of VOC2007."""
    thresholds: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], ...] = Field((0.05, 0.001), min_length=1)
    """Test score thresholds, each a column; the first is the result."""
    images: int = Field(16, ge=1)
    """Images per forward."""


class Recipe(Config):
    """Everything a run is made of."""

    name: str = Field(json_schema_extra={"pattern": NAME + r"(?!\n)"})
    """Letters, digits, `.`, `_` and `-`: run folders are called like it."""
    plugins: tuple[str, ...] = ()
    """Modules with plug-ins of your own: dotted names, or paths relative to the recipe."""
    seed: int = Field(0, ge=0)
    data: DataConfig
    views: ViewsConfig
    detector: Slot[DetectorConfig]
    method: Slot[MethodConfig]
    engine: EngineConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    watch: WatchConfig = WatchConfig()

    @field_validator("name")
    @classmethod
    def _can_name_a_folder(cls, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise ValueError(f"run folders are called like it: letters, digits, '.', '_' and '-' only, not '{name}'")
        return name
