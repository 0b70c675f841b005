"""Losses per element or candidate, not reduced, in fp32 or finer."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ssodkit.ops.boxes import at_least_fp32


def sigmoid_cross_entropy(logits: Float[Tensor, "*shape"], targets: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Binary cross-entropy of each logit; `targets` may be soft, in [0, 1]."""
    logits = at_least_fp32(logits)
    return binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")


def sigmoid_focal(
    logits: Float[Tensor, "*shape"], targets: Float[Tensor, "*shape"], focus: float, balance: float | None
) -> Float[Tensor, "*shape"]:
    """|y - p|^focus BCE(p, y), times balance y + (1 - balance)(1 - y) unless that is None; `targets` y may be soft.

    Source: Lin et al., RetinaNet, arXiv:1708.02002, eq. 5; for soft targets the form of Zhang et al., Semi-DETR,
    arXiv:2307.08095, which is the same for hard ones.
    """
    logits = at_least_fp32(logits)
    targets = targets.to(logits.dtype)
    # Not 0 to the power of focus: below 1, its gradient is infinite.
    wrong = (targets - logits.sigmoid()).abs().clamp(min=torch.finfo(logits.dtype).tiny)
    losses = sigmoid_cross_entropy(logits, targets) * wrong.pow(focus)
    return losses if balance is None else losses * (balance * targets + (1.0 - balance) * (1.0 - targets))


def softmax_cross_entropy(
    logits: Float[Tensor, "*batch columns"], targets: Float[Tensor, "*batch columns"], focus: float = 0.0
) -> Float[Tensor, "*batch"]:
    """-y (1 - p)^focus log p, summed over the columns; p are the softmax probabilities, and `targets` y may be soft.

    Source: Lin et al., RetinaNet, arXiv:1708.02002, eq. 4, with a softmax as in Liu et al., Unbiased Teacher,
    arXiv:2102.09480 (focus 1.5); focus 0 is cross-entropy.
    """
    log_prob = at_least_fp32(logits).log_softmax(dim=-1)
    targets = targets.to(log_prob.dtype)
    if focus == 0.0:
        return -(targets * log_prob).sum(dim=-1)
    wrong = (1.0 - log_prob.exp()).clamp(min=torch.finfo(log_prob.dtype).tiny)  # as in `sigmoid_focal`
    return -(targets * wrong.pow(focus) * log_prob).sum(dim=-1)


def sigmoid_divergence(logits: Float[Tensor, "*shape"], targets: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """KL(y || p) of the two outcomes of each logit: the cross-entropy less the entropy of the `targets` y.

    Never below 0 but for rounding, and 0 where p = y; one outcome alone, y log(y / p), may be negative.
    """
    targets = targets.to(at_least_fp32(logits).dtype)
    entropy = torch.special.entr(targets) + torch.special.entr(1.0 - targets)
    return sigmoid_cross_entropy(logits, targets) - entropy


def softmax_divergence(
    logits: Float[Tensor, "*batch columns"], targets: Float[Tensor, "*batch columns"]
) -> Float[Tensor, "*batch"]:
    """KL(y || p) of the softmax p of `logits`; the `targets` y sum to 1 over the columns."""
    targets = targets.to(at_least_fp32(logits).dtype).clamp(min=0.0)  # what is left for background may be -1e-8
    return softmax_cross_entropy(logits, targets) - torch.special.entr(targets).sum(dim=-1)


def softened(probs: Float[Tensor, "*shape"], temperature: float) -> Float[Tensor, "*shape"]:
    """Distributions over the last dimension, as if their logits had been divided by `temperature`."""
    if temperature == 1.0:
        return probs
    powers = probs.clamp(min=0.0).pow(1.0 / temperature)
    return powers / powers.sum(dim=-1, keepdim=True)


def smooth_l1(difference: Float[Tensor, "*shape"], beta: float) -> Float[Tensor, "*shape"]:
    """|d| - beta / 2, and d^2 / (2 beta) where |d| < beta; beta 0 is |d|.

    Source: Girshick, Fast R-CNN, arXiv:1504.08083, eq. 3, there with beta 1.
    """
    size = at_least_fp32(difference).abs()
    if beta == 0.0:
        return size
    return torch.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)
