"""Any network of timm (huggingface/pytorch-image-models) that gives feature pyramids."""

from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssodkit.detectors.backbones.base import Backbone, BackboneConfig
from ssodkit.detectors.backbones.weights import SUFFIX, check_weights, is_hub_within_reach, kept_weights
from ssodkit.errors import RecipeError, TrainingError
from ssodkit.plugins import BuildContext, register

FIRST_STAGE = 4
"""Stride of the first stage; what comes before is the stem."""


@register
class TimmConfig(BackboneConfig):
    """A network by its name in timm; mean and standard deviation of the pixels are those of its weights."""

    type: Literal["timm"] = "timm"

    name: str = "resnet50.tv_in1k"
    weights: Literal["timm", "random"] | Path = "timm"
    """`timm` downloads them once, or takes them from its cache; a path is a safetensors file of this network;
    `random` starts from scratch."""
    strides: tuple[Annotated[int, Field(ge=1)], ...] = Field((4, 8, 16, 32), min_length=1)
    """The feature maps that are used, finest first."""
    frozen_stages: int = Field(1, ge=0)
    """How many stages, with all before them, do not learn: 1 is the stem and the stage of stride 4, also where its map
    is not used."""
    batch_norm: Literal["frozen", "affine", "train"] = "frozen"
    """Frozen: neither statistics nor scale and offset change. Affine: the statistics do not, scale and offset do."""

    @field_validator("weights")
    @classmethod
    def _is_safetensors(cls, weights: str | Path) -> str | Path:
        if isinstance(weights, Path) and weights.suffix != SUFFIX:
            raise ValueError(f"{weights} is no {SUFFIX} file; other kinds may run code when they are read")
        return weights

    @property
    def levels(self) -> int:
        return len(self.strides)

    @property
    def coarsest(self) -> int:
        return self.strides[-1]

    @property
    def is_pretrained(self) -> bool:
        return self.weights != "random"

    @property
    def freezes(self) -> bool:
        return self.frozen_stages > 0 or self.batch_norm != "train"

    def build(self, context: BuildContext) -> "Timm":
        return Timm(self, context.load_weights)


class Timm(Backbone):
    """The network's maps of the config's strides; what is frozen stays so in train mode."""

    def __init__(self, config: TimmConfig, load_weights: bool) -> None:
        super().__init__()
        self.config = config
        network = _create(config, load_weights)
        self.network: nn.Module = network
        self.strides = config.strides
        self.channels = tuple(network.feature_info.channels())
        self.register_buffer("mean", torch.tensor(network.pretrained_cfg["mean"]))
        self.register_buffer("std", torch.tensor(network.pretrained_cfg["std"]))
        self._fixed = _frozen_parameters(network, config)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name not in self._fixed)

    def train(self, mode: bool = True) -> "Timm":
        """Frozen batch-norm keeps its statistics too."""
        super().train(mode)
        keeps_all = self.config.batch_norm == "affine"
        for name, module in self.network.named_modules():
            if isinstance(module, _BatchNorm) and (keeps_all or f"{name}.weight" in self._fixed):
                module.eval()
        return self

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Feature maps, finest first."""
        maps = self.network(images)
        if getattr(self.network, "output_fmt", "NCHW") == "NHWC":
            return [level.permute(0, 3, 1, 2) for level in maps]
        return list(maps)


def _create(config: TimmConfig, load_weights: bool) -> Any:
    import timm

    try:
        with torch.device("meta"):
            strides = timm.create_model(config.name, features_only=True).feature_info.reduction()
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise RecipeError(f"detector.backbone.name: timm gives no feature maps of '{config.name}': {error}") from error
    missing = [stride for stride in config.strides if stride not in strides]
    if missing:
        raise RecipeError(
            f"detector.backbone.strides: {config.name} has no map of stride {missing[0]}, "
            f"but of {', '.join(map(str, strides))}"
        )
    indices = tuple(strides.index(stride) for stride in config.strides)
    if not (load_weights and config.is_pretrained):
        return timm.create_model(config.name, features_only=True, out_indices=indices)
    try:
        source = {}
        file = config.weights if isinstance(config.weights, Path) else kept_weights(config.name)
        if isinstance(config.weights, Path):
            check_weights(config.name, config.weights)
        elif file is None and not is_hub_within_reach():
            raise ConnectionError("there is no network, and timm keeps no copy of them")
        if file is not None:
            source = {"pretrained_cfg_overlay": {"file": str(file)}}
        return timm.create_model(config.name, features_only=True, out_indices=indices, pretrained=True, **source)
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise TrainingError(
            f"The weights of {config.name} cannot be read ({reason.rstrip('.')}). Run once online, so that timm keeps "
            f"them; or fetch model.safetensors from https://huggingface.co/timm/{config.name} and give the file as "
            "`detector.backbone.weights`; or take a detector that learns from new weights, such as "
            "bases/detectors/faster_rcnn_light.yaml."
        ) from error


def _frozen_parameters(network: Any, config: TimmConfig) -> frozenset[str]:
    """Names of the parameters that do not learn: those up to the end of the last frozen stage, and batch-norm's."""
    names = [name for name, _ in network.named_parameters()]
    frozen = set()
    if config.frozen_stages:
        stages = [
            part["module"]
            for part in network.feature_info.info
            if FIRST_STAGE <= part["reduction"] <= max(config.strides)
        ]
        if config.frozen_stages > len(stages):
            raise RecipeError(f"detector.backbone.frozen_stages: {config.name} has {len(stages)} stages here")
        stage = stages[config.frozen_stages - 1]
        inside = [
            place for place, name in enumerate(names) if name.startswith((f"{stage}.", f"{stage.replace('.', '_')}."))
        ]
        if not inside:
            raise RecipeError(
                f"detector.backbone.frozen_stages: the layers of {config.name} are not in the order of its stages; "
                "set it to 0"
            )
        frozen.update(names[: inside[-1] + 1])
    if config.batch_norm == "frozen":
        for name, module in network.named_modules():
            if isinstance(module, _BatchNorm):
                frozen.update(f"{name}.{part}" for part, _ in module.named_parameters(recurse=False))
    return frozenset(frozen)
