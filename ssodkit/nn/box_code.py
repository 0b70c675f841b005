"""How a regressor's box code is configured; see `ops.coding`."""

from pydantic import Field

from ssodkit.ops.coding import BoxCoder
from ssodkit.plugins import Config


class BoxCodeConfig(Config):
    """How a stage's regressor writes boxes."""

    center_std: float = Field(1.0, ge=0.001, le=1000.0)
    """Divides center shifts, which are in candidate sides."""
    side_std: float = Field(1.0, ge=0.001, le=1000.0)
    """Divides log ratios of sides."""
    largest_ratio: float = Field(1000.0 / 16.0, gt=1.0, le=1e6)
    """A decoded side is at most this many candidate sides."""
    limits_shrinking: bool = True
    """Whether it is also at least the candidate's divided by `largest_ratio` (torchvision, detectron2: no)."""

    @property
    def coder(self) -> BoxCoder:
        """The coder that these numbers describe."""
        return BoxCoder(self.center_std, self.side_std, self.largest_ratio, self.limits_shrinking)
