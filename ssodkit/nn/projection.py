"""The backbone's maps at one width, for a transformer that mixes the levels itself.

Source: Zhu et al., Deformable DETR, ICLR 2021, arXiv:2010.04159, appendix A.2 and figure 4.
"""

from collections.abc import Sequence

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from ssodkit.plugins import Config


class ProjectionConfig(Config):
    """Width and extra levels of the projected maps; there is one for every map of the backbone."""

    channels: int = Field(256, ge=1, le=16_384)
    extra_levels: int = Field(1, ge=0, le=10)
    """Coarser levels behind the last: 3x3 convolutions of stride 2, of which the first reads the backbone's last map,
    each further one the level before."""
    groups: int = Field(32, ge=1)
    """Of the group normalization behind each convolution; they divide `channels`."""

    @model_validator(mode="after")
    def _groups_are_of_one_size(self) -> "ProjectionConfig":
        if self.channels % self.groups:
            raise ValueError(f"`groups` is {self.groups}, which must divide the {self.channels} `channels`")
        return self


class Projection(nn.Module):
    """A 1x1 convolution and group normalization of every map; levels do not see each other.

    `strides` are those of the levels, extra ones included. Weights begin Xavier-uniform, biases at 0.
    """

    def __init__(self, config: ProjectionConfig, in_channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.config = config
        self.strides = (*strides, *(strides[-1] * 2**level for level in range(1, config.extra_levels + 1)))
        self.lateral = nn.ModuleList(_normalized(nn.Conv2d(width, config.channels, 1), config) for width in in_channels)
        self.extra = nn.ModuleList(
            _normalized(nn.Conv2d(width, config.channels, 3, stride=2, padding=1), config)
            for width in [in_channels[-1], *[config.channels] * config.extra_levels][: config.extra_levels]
        )

    def forward(self, maps: Sequence[Float[Tensor, "batch _ _ _"]]) -> tuple[Float[Tensor, "batch channels _ _"], ...]:
        """The levels of `maps`, finest first."""
        levels = [lateral(level) for lateral, level in zip(self.lateral, maps, strict=True)]
        coarsest = maps[-1]
        for extra in self.extra:
            coarsest = extra(coarsest)
            levels.append(coarsest)
        return tuple(levels)


def _normalized(convolution: nn.Conv2d, config: ProjectionConfig) -> nn.Sequential:
    nn.init.xavier_uniform_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution, nn.GroupNorm(config.groups, config.channels))
