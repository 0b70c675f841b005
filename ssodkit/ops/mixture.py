"""A threshold per row of scores from a mixture of two Gaussians: the high scores against the low ones.

All rows are fitted at once by expectation maximization with scikit-learn's semantics (`GaussianMixture` of two
components with given means, weights and precisions): its start, its floor under variances, and its tolerance, at which
a fit usually stops long before it has converged. That early stop is part of the method that this follows.

Source: Wang et al., Consistent-Teacher, CVPR 2023, arXiv:2209.01589, section 3.4; rule of the threshold as released in
Adamdad/ConsistentTeacher.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

TOLERANCE = 1e-3
"""A row stops once its mean log-likelihood changes by less."""
ITERATIONS = 100
"""A row stops after so many, converged or not."""
VARIANCE_FLOOR = 1e-6
"""Added to every variance."""
COST_FLOOR = 1e-5
"""To those of costs."""

Policy = Literal["high", "middle"]


@dataclass(frozen=True)
class Mixture:
    """Two Gaussians per row: component 0 began at the lowest score, component 1 at the highest."""

    means: Float64[Tensor, "rows 2"]
    variances: Float64[Tensor, "rows 2"]
    weights: Float64[Tensor, "rows 2"]
    iterations: Int64[Tensor, "rows"]
    """Made until the row stopped."""

    def log_joint(self, scores: Float[Tensor, "rows samples"]) -> Float64[Tensor, "rows 2 samples"]:
        """ln w_k N(s | mu_k, v_k) of every score."""
        distances = scores.double()[:, None] - self.means[..., None]
        normalizers = self.weights.log() - 0.5 * (2.0 * math.pi * self.variances).log()
        return normalizers[..., None] - 0.5 * distances.square() / self.variances[..., None]


def mixture_thresholds(
    scores: Float[Tensor, "rows samples"],
    valid: Bool[Tensor, "rows samples"],
    policy: Policy = "high",
    default: float = 0.0,
    min_samples: int = 4,
) -> tuple[Float[Tensor, "rows"], Bool[Tensor, "rows"]]:
    """A threshold for each row, and whether its fit failed; the threshold is one of the row's scores, or `default`.

    `high` is the score that is likeliest under the mixture among those that component 1 has most likely made; `middle`
    is the lowest of these. It is `default` where a row has fewer than `min_samples` valid scores, where they are all
    equal, where component 1 made none of them, and where the fit failed: a score or the mixture was not finite.
    """
    mixture = fit_mixtures(scores, valid)
    joint = mixture.log_joint(scores)
    made = valid & (joint[:, 1] > joint[:, 0])
    if policy == "high":
        likelihood = joint.logsumexp(dim=1)
        made = made & (likelihood == _extremes(likelihood, made)[1][:, None])
    threshold, _ = _extremes(scores, made)

    enough = valid.sum(dim=1) >= min_samples
    parameters = torch.cat([mixture.means, mixture.variances, mixture.weights], dim=1)
    failed = enough & ~parameters.isfinite().all(dim=1)
    lowest, highest = _extremes(scores, valid)
    found = enough & ~failed & made.any(dim=1) & (lowest < highest)
    return torch.where(found, threshold, default), failed


def low_center(costs: Float[Tensor, "samples"], valid: Bool[Tensor, "samples"]) -> Float[Tensor, ""]:
    """The cost that is likeliest under the mixture of all valid ones among those that its lower component has made.

    That is about the middle of the low ones. It is one of the costs, of equally likely ones the lowest, whatever their
    order: they are sorted first, as sums depend on it. 0 where there is none.

    Source: Zhang et al., Semi-DETR, CVPR 2023, arXiv:2307.08095, section 3.4, as its code has it (JCZ404/Semi-DETR).
    """
    if not costs.shape[0]:
        return costs.new_zeros(())
    order = costs.double().masked_fill(~valid, torch.inf).argsort(stable=True)
    costs, valid = costs[order], valid[order]
    joint = fit_mixtures(costs[None], valid[None], floor=COST_FLOOR).log_joint(costs[None])[0]
    low = valid & (joint[0] >= joint[1])
    low = torch.where(low.any(), low, valid)
    place = joint.logsumexp(dim=0).masked_fill(~low, -torch.inf).argmax()
    return costs.gather(0, place[None])[0].masked_fill(~valid.any(), 0.0)


def fit_mixtures(
    scores: Float[Tensor, "rows samples"],
    valid: Bool[Tensor, "rows samples"],
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
    floor: float = VARIANCE_FLOOR,
) -> Mixture:
    """The mixtures of all rows, each fitted to its valid scores alone, in float64; `floor` is added to variances.

    A row that has stopped changes no more, so that no device is asked whether all have. A row without valid scores
    gets numbers without a meaning; one with a score that is not finite gets none that is finite.
    """
    scores = scores.double().masked_fill(~valid, 0.0)
    count = valid.sum(dim=1).clamp(min=1).double()
    center = (scores.sum(dim=1) / count)[:, None]  # squares of centered scores keep their digits
    moments = torch.stack([valid.double(), (scores - center) * valid, (scores - center).square() * valid], dim=1)

    means = torch.stack(_extremes(scores, valid), dim=1) - center
    variances, weights = torch.ones_like(means), torch.full_like(means, 0.5)
    likelihood = torch.full_like(count, -torch.inf)
    stopped = torch.zeros_like(count, dtype=torch.bool)
    made = torch.zeros_like(count, dtype=torch.int64)
    for _ in range(iterations):
        joint = torch.bmm(_log_joint_of_moments(means, variances, weights), moments)
        responsibility = joint.softmax(dim=1)
        log_sum = joint.amax(dim=1) - responsibility.amax(dim=1).log()
        before, likelihood = likelihood, (log_sum * moments[:, 0]).sum(dim=1) / count
        made = made + ~stopped

        sums = torch.bmm(responsibility, moments.transpose(1, 2))  # rows, components: r, r s, r s^2
        shares = sums[..., 0] + 10.0 * torch.finfo(torch.float64).eps
        mean = sums[..., 1] / shares
        variance = sums[..., 2] / shares - mean.square() + floor
        means = torch.where(stopped[:, None], means, mean)
        variances = torch.where(stopped[:, None], variances, variance)
        weights = torch.where(stopped[:, None], weights, shares / count[:, None])

        stopped = stopped | ((likelihood - before).abs() < tolerance)
        if scores.is_cpu and bool(stopped.all()):
            break  # the rest would change nothing, and here it costs nothing to ask
    return Mixture(means + center, variances, weights, made)


def _extremes(
    scores: Float[Tensor, "rows samples"], valid: Bool[Tensor, "rows samples"]
) -> tuple[Float[Tensor, "rows"], Float[Tensor, "rows"]]:
    """The lowest and the highest valid score of each row; 0 where it has none."""
    if scores.shape[1] == 0:
        return scores.new_zeros(len(scores)), scores.new_zeros(len(scores))
    lowest = scores.masked_fill(~valid, torch.inf).amin(dim=1)
    highest = scores.masked_fill(~valid, -torch.inf).amax(dim=1)
    some = valid.any(dim=1)
    return lowest.masked_fill(~some, 0.0), highest.masked_fill(~some, 0.0)


def _log_joint_of_moments(
    means: Float64[Tensor, "rows 2"], variances: Float64[Tensor, "rows 2"], weights: Float64[Tensor, "rows 2"]
) -> Float64[Tensor, "rows 2 3"]:
    """Factors of 1, s and s^2 in ln w_k N(s | mu_k, v_k)."""
    precisions = 1.0 / variances
    constant = weights.log() - 0.5 * (2.0 * math.pi * variances).log() - 0.5 * means.square() * precisions
    return torch.stack([constant, means * precisions, -0.5 * precisions], dim=2)
