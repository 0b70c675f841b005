"""A consistency as somebody else would write it, beside a recipe: both streams look alike on the whole."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ssodkit.consistency.base import Consistency, ConsistencyConfig, Scene
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses, Term


@register
class LevelConfig(ConsistencyConfig):
    """The mean of the finest map is the same in both streams, up to a factor that is learned."""

    type: Literal["outside_level"] = "outside_level"

    def build(self, context: BuildContext) -> "Level":
        return Level()


@register
class BoxesConfig(LevelConfig):
    """The same, for methods with pseudo-boxes."""

    type: Literal["outside_boxes"] = "outside_boxes"
    needs: ClassVar[frozenset[str]] = frozenset({"pseudo_boxes"})


class Level(Consistency):
    """Counts the updates that it saw."""

    updates: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.register_buffer("updates", torch.zeros(()))
        self.scene: Scene | None = None  # for the tests

    def forward(self, scene: Scene) -> Losses:
        self.scene = scene
        mine = scene.labeled.features.maps[0].mean()
        other = mine if scene.unlabeled is None else scene.unlabeled.features.maps[0].mean() * self.factor
        return Losses({"level": Term((mine - other).square(), mine.new_ones(()))})

    def after_update(self, progress: Progress, ok: Tensor) -> None:
        self.updates += ok
