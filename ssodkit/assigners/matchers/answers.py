"""What the matchers that read predictions compare: answers and targets, cleared of what is not valid."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ssodkit.ops.boxes import at_least_fp32, has_area
from ssodkit.ops.matching import iou_with_own
from ssodkit.ops.rows import take_rows
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.teaching import Targets


@dataclass(frozen=True)
class Answers:
    """A stage's answers and the targets to compare them with, at least one row of them."""

    valid: Bool[Tensor, "batch candidates"]
    boxes: Float[Tensor, "batch candidates 4"]
    """In pixels, not clipped; all 0, so that they overlap nothing, where not `valid`."""
    probs: Float[Tensor, "batch candidates classes"]
    """Of the foreground classes."""
    taught: Bool[Tensor, "batch targets"]
    """Targets that are valid and have an area."""
    goals: Float[Tensor, "batch targets 4"]
    """Their boxes; all 0 where not `taught`."""
    labels: Int64[Tensor, "batch targets"]
    """0 where not `taught`."""

    def own_iou(self, target: Int64[Tensor, "batch candidates"]) -> Float[Tensor, "batch candidates"]:
        """IoU of each answer with its target; where that is negative, with the first one."""
        return iou_with_own(self.boxes, self.goals, target.clamp(min=0))

    def own_prob(self, target: Int64[Tensor, "batch candidates"]) -> Float[Tensor, "batch candidates"]:
        """Probability of each candidate for the class of its target, likewise."""
        labels = take_rows(self.labels, target.clamp(min=0))
        return self.probs.gather(2, labels[..., None])[..., 0]


def compare(predictions: Predictions, targets: Targets) -> Answers:
    """What `predictions` say, beside `targets`."""
    valid = predictions.candidates.valid
    if not targets.boxes.shape[1]:
        targets = Targets.empty(len(valid), valid.device, length=1)
    boxes = predictions.decode().masked_fill(~valid[..., None], 0.0)
    taught = targets.valid & has_area(targets.boxes)
    return Answers(
        valid=valid,
        boxes=boxes,
        probs=predictions.class_probs()[..., : predictions.num_classes],
        taught=taught,
        goals=at_least_fp32(targets.boxes).to(boxes.dtype).masked_fill(~taught[..., None], 0.0),
        labels=targets.labels.masked_fill(~taught, 0),
    )
