"""One update: losses of a batch, gradients, weights, teacher. The host waits for nothing here.

Losses become numbers by one sum over the processes. Whether they and the gradients were finite is a flag on the
device, which the fused optimizer and the method obey; the host reads it later, with the metrics.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ssodkit.engine.distributed import Processes
from ssodkit.engine.optimizer import LossScale, build_optimizer, gradient_norm, learning, set_learning_rate
from ssodkit.engine.precision import autocast
from ssodkit.engine.readback import Readback
from ssodkit.engine.statistics import Statistics
from ssodkit.methods.base import Method
from ssodkit.ops.collect import sum_over_processes
from ssodkit.ops.random import make_key
from ssodkit.recipe.model import EngineConfig
from ssodkit.structures.geometry import SemiBatch
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses, Report, Step


@dataclass(frozen=True)
class Numbers:
    """What the host learns of an update; of all processes together, averaged over its micro-batches."""

    losses: Mapping[str, float]
    not_finite: tuple[str, ...]
    """Terms that were not finite in one of the processes."""
    gradient_norm: float
    """Before clipping."""
    is_updated: bool
    """False where the update was skipped: an overflow under fp16, or something that was not finite."""
    is_halted: bool
    """Something was not finite; nothing has changed since, and nothing will."""
    loss_scale: float
    pseudo_boxes: float | None
    """Selected by class in this step, per unlabeled image; None where there was none."""
    wish_to_stop: bool


@dataclass(frozen=True)
class Outcome:
    """What an update leaves behind; its numbers may still be on their way from the device."""

    step: int
    """Finished updates, this one included."""
    learning_rate: float
    batches: tuple[SemiBatch, ...]
    """Kept until it is known that all was finite."""
    reports: tuple[Report, ...]
    terms: tuple[str, ...]
    readback: Readback

    def read(self) -> Numbers:
        """The numbers; waits for the device if they have not arrived."""
        count = len(self.terms)
        numbers = self.readback.read()
        losses, flags = numbers[:count], numbers[count : 2 * count]
        norm, updated, halted, scale, boxes, images, wishes = numbers[2 * count :]
        return Numbers(
            losses=dict(zip(self.terms, losses, strict=True)),
            not_finite=tuple(term for term, flag in zip(self.terms, flags, strict=True) if flag),
            gradient_norm=norm,
            is_updated=bool(updated),
            is_halted=bool(halted),
            loss_scale=scale,
            pseudo_boxes=boxes / images if images else None,
            wish_to_stop=bool(wishes),
        )


class Updater:
    """Everything that an update changes: the method, its optimizer, the scale of its loss."""

    def __init__(
        self, method: Method, config: EngineConfig, processes: Processes, seed: int = 0, lr_factor: float = 1.0
    ) -> None:
        self.method = method
        self.config = config
        self.processes = processes
        self.seed = seed
        self.lr_factor = lr_factor
        self.optimizer = build_optimizer(method, config.optimizer)
        self.scale = LossScale(processes.device, enabled=config.precision == "fp16")
        self._learning = learning(method)
        self._halted = torch.tensor(False, device=processes.device)
        self._statistics = Statistics(method, processes)
        self._parallel: torch.nn.Module = method
        if processes.count > 1:
            self._parallel = DistributedDataParallel(method, gradient_as_bucket_view=True, **_KEEP_BUFFERS)

    def __call__(self, batches: tuple[SemiBatch, ...], progress: Progress, wish_to_stop: bool = False) -> Outcome:
        """Update by the micro-batches of one step; `wish_to_stop` reaches all processes with the losses.

        After a step that was not finite nothing changes any more: the weights stay those that made it.
        """
        rate = self.lr_factor * self.config.lr.at(progress)
        set_learning_rate(self.optimizer, rate)
        torch.manual_seed(make_key(self.seed, progress.step, self.processes.rank))  # dropout of plug-ins
        self.optimizer.zero_grad(set_to_none=True)

        before = self._statistics.keep()
        steps, sums = zip(*self._backward(batches, progress, wish_to_stop), strict=True)
        losses, flags, counts = _average(sums)
        divisor = self.scale.value * len(batches)
        norm = gradient_norm(self._learning).float() / divisor
        updated, halted = self._judge(flags, norm)
        self._apply(updated, norm, divisor)
        self._statistics.settle(before, updated)

        progress = replace(progress, step=progress.step + 1)
        self.method.after_update(progress, updated)
        verdict = torch.stack([norm, updated.float(), halted.float(), self.scale.value])
        return Outcome(
            step=progress.step,
            learning_rate=rate,
            batches=batches,
            reports=tuple(step.report for step in steps if step.report is not None),
            terms=tuple(steps[0].losses),
            readback=Readback(torch.cat([losses, flags, verdict, counts])),
        )

    def _backward(
        self, batches: tuple[SemiBatch, ...], progress: Progress, wish_to_stop: bool
    ) -> Iterator[tuple[Step, "_Sums"]]:
        """Forward and backward of each micro-batch; gradients add up, scaled, and are exchanged once at the end."""
        for place, batch in enumerate(batches, start=1):
            with self._exchange_gradients(place == len(batches)):
                with autocast(self.config.precision, self.processes.device):
                    step = self._parallel(batch, progress)
                sums, denominators = _sum_over_processes(step, wish_to_stop)
                values = step.losses.values(denominators, self.processes.count)
                (self.scale.value * torch.stack(list(values.values())).sum()).backward()
            yield step, sums

    def _judge(self, flags: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
        """Whether this update may happen, and whether the run is halted from here on; 0-d, on the device."""
        is_loss_finite, is_gradient_finite = flags.sum() == 0, norm.isfinite()
        self.scale.update(overflow=is_loss_finite & ~is_gradient_finite & ~self._halted)
        updated = is_loss_finite & is_gradient_finite & ~self._halted
        if self.scale.enabled:
            goes_on = is_loss_finite & (self.scale.value >= 1.0)
        else:
            goes_on = is_loss_finite & is_gradient_finite
        self._halted = self._halted | ~goes_on
        return updated, self._halted

    def _apply(self, updated: Tensor, norm: Tensor, divisor: Tensor) -> None:
        """Change the weights where `updated`: the fused kernel divides the gradients, which also clips their norm."""
        if self.config.clip_norm is not None:
            divisor = divisor * ((norm + 1e-6) / self.config.clip_norm).clamp(min=1.0)
        if self.config.clip_value is not None:
            gradients = [parameter.grad for parameter in self._learning if parameter.grad is not None]
            torch._foreach_div_(gradients, divisor)
            torch.nn.utils.clip_grad_value_(self._learning, self.config.clip_value)
            divisor = torch.ones_like(divisor)
        self.optimizer.grad_scale = divisor  # type: ignore[attr-defined]
        self.optimizer.found_inf = (~updated).float()  # type: ignore[attr-defined]
        self.optimizer.step()

    def _exchange_gradients(self, now: bool) -> AbstractContextManager[object]:
        if now or not isinstance(self._parallel, DistributedDataParallel):
            return nullcontext()
        return self._parallel.no_sync()


_NAMES = inspect.signature(DistributedDataParallel.__init__).parameters
_KEEP_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}
"""All processes make the same buffers by themselves; the option has another name since torch 2.15."""

_Sums = tuple[Tensor, Tensor, Tensor]
"""Loss values and flags, one per term; pseudo-boxes, unlabeled images and wishes to stop."""


def _sum_over_processes(step: Step, wish_to_stop: bool) -> tuple[_Sums, Tensor]:
    """What the host wants to know of a step, and the denominators of its losses, by one sum."""
    losses = step.losses
    count = len(losses.terms)
    sums = torch.stack([term.sum.detach().float() for term in losses.terms.values()])
    denominators = losses.denominators().float()
    flags = (~(sums.isfinite() & denominators[:count].isfinite())).float()
    boxes, images = _count_pseudo_boxes(step.report, like=sums)
    wish = sums.new_full((), float(wish_to_stop))
    together = torch.cat([sums, denominators, flags, torch.stack([boxes, images, wish])])
    sums, denominators, flags, counts = sum_over_processes(together).split([count, len(denominators), count, 3])
    summed = {name: replace(term, sum=sums[place]) for place, (name, term) in enumerate(losses.terms.items())}
    values = torch.stack(list(Losses(summed).values(denominators).values()))
    return (values, flags, counts), denominators


def _count_pseudo_boxes(report: Report | None, like: Tensor) -> tuple[Tensor, Tensor]:
    if report is None:
        return like.new_zeros(()), like.new_zeros(())
    classes = report.selection.supervision.classes
    taught = (classes.valid & (classes.weight > 0)).sum().to(like.dtype)
    return taught, like.new_full((), float(classes.valid.shape[0]))


def _average(sums: tuple[_Sums, ...]) -> _Sums:
    """Of all micro-batches: mean losses, summed flags and counts."""
    losses, flags, counts = (torch.stack(part) for part in zip(*sums, strict=True))
    return losses.mean(dim=0), flags.sum(dim=0), counts.sum(dim=0)
