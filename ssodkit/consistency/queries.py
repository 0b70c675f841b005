"""Queries: what lies in a pseudo-box is asked about in both views, and both networks shall come to the same states.

Queries of a transformer have no fixed meaning, so further ones are made: their content is a projection of the teacher's
features in a box, and they begin at that box in either view. Boxes are mined: beside those that teach, all that the
student finds about as cheaply as most of what is there.

Source: Zhang et al., Semi-DETR, CVPR 2023, arXiv:2307.08095, sections 3.3 and 3.4; JCZ404/Semi-DETR.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize, pad

from ssodkit.assigners.matchers.hungarian import PairCost, costs_of_targets
from ssodkit.assigners.selectors.base import Shortlist
from ssodkit.assigners.selectors.shortlist import shortlist
from ssodkit.consistency.base import Consistency, ConsistencyConfig, Scene
from ssodkit.detectors.base import DetectorConfig
from ssodkit.nn.region_projector import RegionProjector, read_regions
from ssodkit.ops.boxes import at_least_fp32
from ssodkit.ops.collect import gather_over_processes
from ssodkit.ops.mixture import low_center
from ssodkit.ops.rows import first_rows, take_rows
from ssodkit.plugins import BuildContext, register
from ssodkit.structures.geometry import carry
from ssodkit.structures.predictions import Features, Predictions, Queries
from ssodkit.structures.run import Losses, Term
from ssodkit.structures.teaching import Supervision, Targets
from ssodkit.structures.views import View

LEAST_SIDE = 1.0
"""Pixels; boxes that are shorter or narrower in the student's view are left out of both views."""


@register
class QueriesConfig(ConsistencyConfig):
    """Which boxes are asked about, and how."""

    type: Literal["queries"] = "queries"
    needs: ClassVar[frozenset[str]] = frozenset({"queries", "pseudo_boxes"})

    mined: Literal["costs", "candidates", "none"] = "costs"
    """Beside the boxes that teach: candidates that cost the student no more than the likeliest of the low costs, all
    candidates, or none."""
    candidates: Shortlist = Shortlist(at_most=300, deviations=1.0)
    """The teacher's detections that may be mined."""
    cost: PairCost = PairCost()
    """What a candidate costs the student."""
    at_most: int = Field(100, ge=1, le=10_000)
    """Boxes of an image, the most confident."""
    content: Literal["weak", "crossed"] = "weak"
    """Both networks' queries are made of the teacher's features in its own, weak view (the code); or the teacher's of
    the student's in the strong view (the paper)."""
    repeats: int = Field(1, ge=1, le=100)
    """Copies of all queries, which do not see each other. They change nothing (the code: 5)."""
    cells: int = Field(7, ge=1, le=64)
    """Of a box, each way."""
    finest_side: float = Field(56.0, gt=0.0)
    """Pixels; boxes of this side and less are read from the finest level, of twice that side from the next."""
    width: int = Field(1024, ge=1, le=65_536)
    """Of the projection's hidden layer."""

    def build(self, context: BuildContext) -> "QueryConsistency":
        return QueryConsistency(self, context)


@dataclass(frozen=True)
class Asked:
    """The boxes to ask about, in both views: row i is the same box. The last is the middle half of the image, for one
    that has no box."""

    weak: Float[Tensor, "batch boxes 4"]
    strong: Float[Tensor, "batch boxes 4"]
    valid: Bool[Tensor, "batch boxes"]
    counts: Bool[Tensor, "batch boxes"]
    """Boxes of objects: all valid ones but the middles."""


class QueryConsistency(Consistency):
    """Its projection learns with the student; the teacher's queries are of the same."""

    def __init__(self, config: QueriesConfig, context: BuildContext) -> None:
        super().__init__()
        assert isinstance(context.detector, DetectorConfig)
        self.config, self.minimum_visible = config, context.minimum_visible
        self.largest = context.images * config.at_most
        self.projector = RegionProjector(context.detector.query_channels, config.cells, config.width)

    def forward(self, scene: Scene) -> Losses:
        """`states`: the mean over boxes of the squared distance between unit states, by layer, summed."""
        if scene.unlabeled is None or scene.teacher is None or scene.seen is None or scene.selected is None:
            return Losses()
        config, mine, theirs = self.config, scene.unlabeled, scene.seen
        asked = self._mine(scene)
        content = self._project(theirs.features, asked.weak, asked.valid)
        states = scene.student.states_of(mine.stages, self._queries(content, asked.strong, asked.valid))
        with torch.no_grad():
            if config.content == "crossed":
                content = self._project(mine.features, asked.strong, asked.valid)
            queries = self._queries(content, asked.weak, asked.valid)
            goals = scene.teacher.network.states_of(theirs.stages, queries)
        counts, valid = (mask.repeat(1, config.repeats) for mask in (asked.counts, asked.valid))
        apart = [unit_distance(state, goal) for state, goal in zip(states, goals, strict=True)]
        return Losses({"states": Term((torch.stack(apart).sum(dim=0) * counts).sum(), valid.sum().to(apart[0].dtype))})

    @torch.no_grad()
    def _mine(self, scene: Scene) -> Asked:
        assert scene.unlabeled is not None
        assert scene.seen is not None
        assert scene.selected is not None
        found, weak, strong = scene.seen.found, scene.seen.features.view, scene.unlabeled.view
        there = carry(found, weak, strong, self.minimum_visible)
        stays = there.valid & (there.boxes[..., 2:] - there.boxes[..., :2] >= LEAST_SIDE).all(dim=-1)
        listed, _ = shortlist(found, self.config.candidates)
        sure = found.valid & teaches(scene.selected)
        pool = (listed | sure) & stays
        rows = first_rows(pool, self.config.at_most)  # detections come best first
        valid = take_rows(pool, rows)
        goals = Targets(
            boxes=take_rows(there.boxes, rows),
            labels=take_rows(found.labels, rows),
            valid=valid,
            weight=valid.float(),
            crowd=torch.zeros_like(valid),
        )
        chosen = goals.valid & (take_rows(sure, rows) | self._is_mined(scene.unlabeled.stages.last, goals))
        return lay(take_rows(found.boxes, rows), goals.boxes, chosen, weak, strong)

    def _is_mined(self, answers: Predictions, goals: Targets) -> Bool[Tensor, "batch candidates"]:
        """Which candidates are asked about although they do not teach."""
        if self.config.mined != "costs":
            return torch.full_like(goals.valid, self.config.mined == "candidates")
        costs = costs_of_targets(self.config.cost, answers, goals)
        return costs <= low_center_of_all(costs, self.largest)

    def _project(self, features: Features, boxes: Tensor, valid: Tensor) -> Float[Tensor, "batch boxes channels"]:
        config = self.config
        pooled = read_regions(features.maps, features.strides, boxes, config.cells, config.finest_side)
        vectors: Tensor = self.projector(pooled, valid.flatten())
        return vectors.unflatten(0, valid.shape)

    def _queries(self, content: Tensor, boxes: Tensor, valid: Tensor) -> Queries:
        repeats = self.config.repeats
        group = torch.arange(repeats, device=boxes.device).repeat_interleave(boxes.shape[1]).expand(len(boxes), -1)
        return Queries(content.repeat(1, repeats, 1), boxes.repeat(1, repeats, 1), valid.repeat(1, repeats), group)


def teaches(selected: Supervision) -> Bool[Tensor, "batch detections"]:
    """Which detections teach a class."""
    return selected.classes.valid & (selected.classes.weight > 0.0)


def low_center_of_all(costs: Float[Tensor, "batch candidates"], largest: int) -> Float[Tensor, ""]:
    """`low_center` of the finite costs of all processes, each of which has at most the `largest` number."""
    own = pad(costs.flatten().double(), (0, max(0, largest - costs.numel())), value=torch.inf)
    everyones = gather_over_processes(own).flatten()
    return low_center(everyones, everyones.isfinite()).to(costs.dtype)


def lay(
    weak_boxes: Float[Tensor, "batch boxes 4"],
    strong_boxes: Float[Tensor, "batch boxes 4"],
    chosen: Bool[Tensor, "batch boxes"],
    weak: View,
    strong: View,
) -> Asked:
    """The chosen boxes, and the middle of each image that has none."""
    none = ~chosen.any(dim=1, keepdim=True)
    keep = chosen[..., None]
    return Asked(
        weak=torch.cat([weak_boxes * keep, middle(weak.sizes)], dim=1),
        strong=torch.cat([strong_boxes * keep, middle(strong.sizes)], dim=1),
        valid=torch.cat([chosen, none], dim=1),
        counts=torch.cat([chosen, torch.zeros_like(none)], dim=1),
    )


def middle(sizes: Int64[Tensor, "batch 2"]) -> Float[Tensor, "batch 1 4"]:
    """The box of half an image's sides in its middle."""
    sides = sizes.flip(-1).float()
    return torch.cat([0.25 * sides, 0.75 * sides], dim=-1)[:, None]


def unit_distance(
    states: Float[Tensor, "*batch channels"], goals: Float[Tensor, "*batch channels"]
) -> Float[Tensor, "*batch"]:
    """Mean over channels of the squared difference of both, each brought to length 1."""
    return (normalize(at_least_fp32(states), dim=-1) - normalize(at_least_fp32(goals), dim=-1)).square().mean(dim=-1)
