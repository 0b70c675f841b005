"""Optimizers with few parameter groups and fused kernels, and the scale of fp16 losses.

A fused optimizer takes two 0-d tensors on the device with each step: gradients are divided by `grad_scale`, and
nothing at all changes where `found_inf` is 1. So clipping, unscaling and skipping need no host synchronization.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ssodkit.nn.shared_norm import SharedNorm
from ssodkit.recipe.model import AdamWConfig, SgdConfig

NORMALIZATIONS = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._BatchNorm, SharedNorm)


def build_optimizer(module: nn.Module, config: SgdConfig | AdamWConfig) -> torch.optim.Optimizer:
    """The optimizer of all parameters of `module` that learn; each group's `lr_factor` multiplies the schedule."""
    groups = _group(module, config)
    if isinstance(config, AdamWConfig):
        return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, nesterov=config.nesterov, fused=True)
    if config.momentum > 0.0:
        # Fused SGD leaves a new buffer uninitialized if its first step is skipped.
        for parameter in learning(module):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def learning(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen, in the module's order."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """What the next step takes."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients together, 0-d, on the device; not finite if any of them is not."""
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


class LossScale:
    """The factor on fp16 losses: halved after an overflow, doubled after 2,000 steps without one.

    The rule of `torch.amp.GradScaler`, but told from outside which steps overflowed, so that one flag serves all.
    """

    growth_interval = 2000

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self.enabled = enabled
        self.value = torch.tensor(65536.0 if enabled else 1.0, device=device)
        self._clean_steps = torch.tensor(0, device=device)

    def update(self, overflow: Tensor) -> None:
        """Settle the scale of the next step; `overflow` is a 0-d flag on the device."""
        if not self.enabled:
            return
        clean = torch.where(overflow, 0, self._clean_steps + 1)
        grows = clean == self.growth_interval
        self.value = torch.where(overflow, self.value * 0.5, torch.where(grows, self.value * 2.0, self.value))
        self._clean_steps = torch.where(grows, 0, clean)

    def state_dict(self) -> dict[str, Tensor]:
        """What a restart needs."""
        return {"value": self.value, "clean_steps": self._clean_steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a saved state, on this device."""
        self.value = state["value"].to(self.value.device)
        self._clean_steps = state["clean_steps"].to(self.value.device)


def _group(module: nn.Module, config: SgdConfig | AdamWConfig) -> list[dict[str, object]]:
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        # Fewer than two dimensions: a bias, or the scale or shift of a normalization.
        is_spared = config.decay == "weights" and parameter.dim() < 2
        owner, _, last = name.rpartition(".")
        factor = config.backbone_lr if "backbone" in owner.split(".") else 1.0
        if last == "bias" and not isinstance(module.get_submodule(owner), NORMALIZATIONS):
            factor *= config.bias_lr
        groups.setdefault((0.0 if is_spared else config.weight_decay, factor), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "lr_factor": factor}
        for (decay, factor), parameters in groups.items()
    ]
