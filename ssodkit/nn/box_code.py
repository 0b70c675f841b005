"""How a regressor's box code is configured; see `ops.coding`."""

from typing import Literal

from pydantic import Field, model_validator

from ssodkit.ops.coding import BoxCoder, Coder, SideCoder
from ssodkit.plugins import Config


class BoxCodeConfig(Config):
    """How a stage's regressor writes boxes."""

    form: Literal["center", "sides"] = "center"
    """How the center shifts and how the sides grow; or how each of the four sides shifts, so that a detector may be
    unsure of one of them."""
    center_std: float = Field(1.0, ge=0.001, le=1000.0)
    """Divides shifts, which are in candidate sides."""
    side_std: float = Field(1.0, ge=0.001, le=1000.0)
    """Divides log ratios of sides."""
    largest_ratio: float = Field(1000.0 / 16.0, gt=1.0, le=1e6)
    """A decoded side is at most this many candidate sides; in the form `sides`, one shifts by at most so many."""
    limits_shrinking: bool = True
    """Whether it is also at least the candidate's divided by `largest_ratio` (torchvision, detectron2: no)."""
    widened: float = Field(0.0, ge=0.0, le=100.0)
    """Pixels added to a candidate's sides where a target is encoded in the form `sides`, and not where an answer is
    decoded: 1 in the released code of Unbiased Teacher v2."""

    @model_validator(mode="after")
    def _only_sides_are_widened(self) -> "BoxCodeConfig":
        if self.widened and self.form != "sides":
            raise ValueError("`widened` has no effect without `form: sides`; leave it out")
        return self

    @property
    def coder(self) -> Coder:
        """The coder that these numbers describe."""
        if self.form == "sides":
            return SideCoder(self.center_std, self.largest_ratio, self.widened)
        return BoxCoder(self.center_std, self.side_std, self.largest_ratio, self.limits_shrinking)


def unsure_of_no_side(part: str, uncertainty: bool, code: BoxCodeConfig) -> str | None:
    """A sentence that says why a part cannot say its `uncertainty`; None if it can, or does not."""
    if uncertainty and code.form != "sides":
        return f"{part}.uncertainty is of a box's four sides, and its codes are not: write `{part}.code.form: sides`"
    return None
