"""Two ways to the same detections, compared: how far apart they are, and what only one of them has."""

from dataclasses import dataclass

import numpy as np

from ssodkit.engine.found import Found

CLOSE = 1e-3
"""Scores that differ by no more are the same, and boxes whose edges differ by no more than this share of their longer
side: where pictures are resized, a gray level that lies halfway may be rounded either way."""
EDGE = 1e-4
"""And by no more may a score have fallen below a threshold."""
APART = 1.0
"""Pixels from which on two boxes do not belong together."""


@dataclass
class Agreement:
    """Of any number of pictures."""

    pictures: int = 0
    detections: int = 0
    """Of the one that is compared with."""
    agreeing: int = 0
    """Those of them that the other has as well, with the same label and within `CLOSE`."""
    surplus: int = 0
    """Detections that the other alone has."""
    boxes: float = 0.0
    """The largest difference of a coordinate, in pixels, among those of one label that belong together."""
    scores: float = 0.0
    """And of a score."""

    @property
    def is_whole(self) -> bool:
        """Whether both have found the same."""
        return self.agreeing == self.detections and self.surplus == 0

    def add(self, wanted: Found, got: Found, lowest: float, at_most: int) -> None:
        """Compare one picture: each wanted detection, best first, with the nearest one of its label that is left.

        What scores within `EDGE` of `lowest` may be above it in one and not in the other; likewise of the last score
        where there are `at_most` detections.
        """
        self.pictures += 1
        left = np.ones(len(got.scores), dtype=bool)
        for box, score, label in zip(wanted.boxes, wanted.scores, wanted.labels, strict=True):
            apart = np.where(left & (got.labels == label), np.abs(got.boxes - box).max(axis=1, initial=0.0), np.inf)
            nearest = int(apart.argmin()) if len(apart) else -1
            self.detections += 1
            if nearest < 0 or apart[nearest] > APART:
                self.agreeing += bool(score <= _edge(wanted, lowest, at_most))
                continue
            left[nearest] = False
            difference, side = float(abs(got.scores[nearest] - score)), float((box[2:] - box[:2]).max())
            self.boxes, self.scores = max(self.boxes, float(apart[nearest])), max(self.scores, difference)
            self.agreeing += difference <= CLOSE and float(apart[nearest]) <= CLOSE * max(side, 1.0)
        self.surplus += int((got.scores[left] > _edge(got, lowest, at_most)).sum())

    def __str__(self) -> str:
        more = f", and {self.surplus} more in the file" if self.surplus else ""
        return (
            f"{self.agreeing} of {self.detections} detections in {self.pictures} pictures{more}; largest difference: "
            f"boxes {self.boxes:.1g} px, scores {self.scores:.1g}"
        )


def _edge(found: Found, lowest: float, at_most: int) -> float:
    """Up to this score a detection may be missing elsewhere, because of a rounding error."""
    last = float(found.scores.min()) if len(found.scores) >= at_most else lowest
    return max(last, lowest) + EDGE
