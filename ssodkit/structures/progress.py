"""How far a run is: an argument wherever something depends on it, never an attribute."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far the run is. The first step has `step` 0."""

    step: int
    """Finished updates."""
    steps: int
    """Updates of the whole run."""
