"""Normalizers: from losses per candidate to sums and the denominators that divide them.

Each takes `losses` (batch, candidates); `weights`, what each counts in this term, 0 where it does not; the term's
assignment; and the `quota`, how many candidates per image its stage samples at most. It returns sum and denominator,
0-d, by the name that follows the term's: "" but for `two_means`. The value of a term is sum / max(denominator, floor),
with denominators summed over all processes first.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from ssodkit.structures.teaching import Assignment

Parts = Mapping[str, tuple[Tensor, Tensor]]


def sampled(losses: Tensor, weights: Tensor, assignment: Assignment, quota: int) -> Parts:
    """Divided by the draws made in all images: N_r of the RoI terms of mmdetection; all four terms of torchvision."""
    return {"": ((losses * weights).sum(), assignment.sampled.sum())}


def sampled_of_each(losses: Tensor, weights: Tensor, assignment: Assignment, quota: int) -> Parts:
    """Divided by the sum over images of max(#positives, 1) + max(#background, 1): mmdetection's RPN."""
    background = (assignment.background & (assignment.weight > 0.0)).sum(dim=1).clamp(min=1)
    return {"": ((losses * weights).sum(), (_positives_or_one(assignment) + background).sum().to(losses.dtype))}


def quota(losses: Tensor, weights: Tensor, assignment: Assignment, quota: int) -> Parts:
    """Divided by quota x images, however many could be drawn: detectron2's and STAC's RPN."""
    return {"": ((losses * weights).sum(), losses.new_full((), quota * len(losses)))}


def positives(losses: Tensor, weights: Tensor, assignment: Assignment, quota: int) -> Parts:
    """Divided by the number of positives."""
    count = (assignment.positive & (assignment.weight > 0.0)).sum()
    return {"": ((losses * weights).sum(), count.to(losses.dtype))}


def positives_per_image(losses: Tensor, weights: Tensor, assignment: Assignment, quota: int) -> Parts:
    """Divided by the sum over images of max(#positives, 1): the class term of mmdetection's RetinaNet."""
    return {"": ((losses * weights).sum(), _positives_or_one(assignment).sum().to(losses.dtype))}


def image_means(losses: Tensor, weights: Tensor, assignment: Assignment, quota: int) -> Parts:
    """Each image divided by its max(#positives, 1), then by the number of images: torchvision's RetinaNet."""
    per_image = (losses * weights).sum(dim=1) / _positives_or_one(assignment)
    return {"": (per_image.sum(), losses.new_full((), len(losses)))}


def quality(losses: Tensor, weights: Tensor, assignment: Assignment, quota: int) -> Parts:
    """Divided by the sum of the positives' quality, such as their IoU: both terms of Consistent-Teacher.

    Source: Wang et al., arXiv:2209.01589, and its released code (Adamdad/ConsistentTeacher).
    """
    counts = assignment.positive & (assignment.weight > 0.0)
    return {"": ((losses * weights).sum(), (assignment.quality * counts).sum().to(losses.dtype))}


def weights(losses: Tensor, weights: Tensor, assignment: Assignment, quota: int) -> Parts:
    """Divided by the sum of the weights: the weighted mean. Where all weights are 1, this is `sampled`.

    Source: Soft Teacher's class loss as released (microsoft/SoftTeacher) and confirmed by its author:
    (sum_F l + sum_B r_j l_j) / max(|F| + sum_B r_j, 1).
    """
    return {"": ((losses * weights).sum(), weights.sum())}


def two_means(losses: Tensor, weights: Tensor, assignment: Assignment, quota: int) -> Parts:
    """Mean over foreground plus weighted mean over background, as two terms.

    Source: Xu et al., Soft Teacher, arXiv:2106.09018, section "Soft Teacher", the unsupervised class loss as printed:
    1 / |F| sum_F l + sum_B w_j l_j with w_j = r_j / sum_B r_k.
    """
    foreground = weights * assignment.positive
    background = weights * assignment.background
    return {
        "/foreground": ((losses * foreground).sum(), foreground.sum()),
        "/background": ((losses * background).sum(), background.sum()),
    }


def _positives_or_one(assignment: Assignment) -> Tensor:
    """(batch,) positives that were drawn, at least one."""
    return (assignment.positive & (assignment.weight > 0.0)).sum(dim=1).clamp(min=1)


NORMALIZERS: Mapping[str, Callable[[Tensor, Tensor, Assignment, int], Parts]] = {
    function.__name__: function
    for function in (
        sampled,
        sampled_of_each,
        quota,
        positives,
        positives_per_image,
        image_means,
        quality,
        weights,
        two_means,
    )
}
