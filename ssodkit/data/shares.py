"""How many of the training images have labels, as recipes and suites say it."""

from typing import NamedTuple


class Share(NamedTuple):
    """A percentage of the images, or so many of each class."""

    percent: float = 100.0
    shots: int | None = None
    """Images of each class; the percentage is 100 then, and says nothing."""

    def __str__(self) -> str:
        if self.shots is None:
            return f"{self.percent:g} %"
        return f"{self.shots} shot{'s' * (self.shots != 1)}"

    @property
    def heading(self) -> str:
        """What stands above the scores of trainings with so many."""
        return f"{self} labels" if self.shots is None else f"{self} a class"

    @property
    def slug(self) -> str:
        """As it stands in file names."""
        return f"{self.percent:g}pct" if self.shots is None else f"{self.shots}shots"
