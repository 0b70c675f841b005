"""How much a difference of scores owes to which pictures were in the test set.

Source: Efron, Bootstrap methods: another look at the jackknife, Annals of Statistics 1979; the percentile interval.
"""

import contextlib
import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssodkit.bench.statistics import CONFIDENCE
from ssodkit.data.annotations import ImageSet
from ssodkit.engine.metrics import DetectionTable, coco_evaluation
from ssodkit.ops.random import integers, make_key

DRAWS = 400
"""Test sets that are drawn, with replacement, from the test images."""


def difference_interval(
    first: DetectionTable, second: DetectionTable, truth: ImageSet, draws: int = DRAWS
) -> tuple[float, float] | None:
    """A 95 % interval of AP(first) - AP(second), over test sets drawn from the images of `truth`.

    Both are scored on the same drawn images. None where a draw has no box at all, as with few images.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluations = [coco_evaluation(found, truth) for found in (first, second)]
        keys = torch.tensor([make_key(len(truth), "test sets")])
        chosen = integers(keys, (draws, len(truth)), 0, max(0, len(truth) - 1), "images")[0].numpy()
        pairs = np.array([[_average(evaluation, places) for evaluation in evaluations] for places in chosen])
    differences = pairs[:, 0] - pairs[:, 1]
    if not len(differences) or np.isnan(differences).any():
        return None
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(differences, [tail, 100.0 - tail])
    return float(low), float(high)


def _average(evaluation: Any, places: NDArray[np.int64]) -> float:
    """COCO's AP of all areas on these images, as often as they stand there; NaN where no class has a box."""
    parameters = evaluation.params
    table = np.empty((len(parameters.catIds), len(parameters.areaRng), len(parameters.imgIds)), dtype=object)
    table.ravel()[:] = evaluation.evalImgs
    other = type(evaluation)(iouType="bbox")
    other.params = _narrowed(parameters, len(places))
    other._paramsEval = other.params
    other.evalImgs = table[:, 0][:, places].ravel().tolist()
    other.accumulate()
    precision = other.eval["precision"][:, :, :, 0, 0]
    return float(precision[precision > -1].mean()) if (precision > -1).any() else float("nan")


def _narrowed(parameters: Any, images: int) -> Any:
    """The same settings for so many images, all areas together, and the most detections."""
    narrow = type(parameters)(iouType="bbox")
    narrow.imgIds, narrow.catIds = list(range(images)), parameters.catIds
    narrow.areaRng, narrow.areaRngLbl = parameters.areaRng[:1], parameters.areaRngLbl[:1]
    narrow.maxDets = parameters.maxDets[-1:]
    return narrow
