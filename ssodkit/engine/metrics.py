"""Scores of detections against an image set: the COCO metric by pycocotools, and the two of Pascal VOC."""

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssodkit.data.annotations import ImageSet

Scores = dict[str, float | None]
"""Name -> fraction in [0, 1]; None where the image set has no such box."""

ClassScores = dict[str, dict[str, float | int | None]]
"""Name of a class -> its `boxes`, as many as count, `AP` and `AP50`."""

COCO_NAMES = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L", "AR_1", "AR_10", "AR_100", "AR_S", "AR_M", "AR_L")
"""In the order of pycocotools."""


@dataclass(frozen=True)
class DetectionTable:
    """Detections on the host, one per row, in pixels of the original images; image ids ascend."""

    image_ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    """(rows, 4), xyxy."""
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    @classmethod
    def join(cls, tables: Sequence["DetectionTable"]) -> "DetectionTable":
        """All rows, images in ascending order of their ids, so that no order of processes shows."""
        image_ids = np.concatenate([np.zeros(0, np.int64), *(table.image_ids for table in tables)])
        order = np.argsort(image_ids, kind="stable")
        return cls(
            image_ids[order],
            np.concatenate([np.zeros((0, 4), np.float32), *(table.boxes for table in tables)])[order],
            np.concatenate([np.zeros(0, np.int64), *(table.labels for table in tables)])[order],
            np.concatenate([np.zeros(0, np.float32), *(table.scores for table in tables)])[order],
        )

    def as_coco(self, category_ids: NDArray[np.int64]) -> list[dict[str, object]]:
        """COCO's result format, with the data set's own category ids."""
        corners = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        return [
            {"image_id": image, "category_id": category, "bbox": box, "score": score}
            for image, category, box, score in zip(
                self.image_ids.tolist(),
                category_ids[self.labels].tolist(),
                corners.astype(np.float64).tolist(),
                self.scores.astype(np.float64).tolist(),
                strict=True,
            )
        ]


def coco_scores(found: DetectionTable, truth: ImageSet) -> tuple[Scores, ClassScores]:
    """The COCO metric, at most 100 detections per image: of all classes together, and of each.

    What answers to a crowd does not count, and of what answers to a difficult box the first alone does not: it is
    ignored one to one, as an object outside of a range of areas is.

    Source: Lin et al., Microsoft COCO, arXiv:1405.0312; computed by pycocotools.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = coco_evaluation(found, truth)
        evaluation.accumulate()
        evaluation.summarize()
    total = {name: _or_none(value) for name, value in zip(COCO_NAMES, evaluation.stats, strict=True)}
    # Over IoU thresholds from 0.5, recalls, and classes in the order of their ids; of all areas, and 100 detections.
    precision = evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=1)
    counted = truth.labels[~(truth.crowd | truth.difficult)]
    classes: ClassScores = {}
    for label, place in enumerate(np.argsort(np.argsort(truth.category_ids)).tolist()):
        classes[truth.categories[label].name] = {
            "boxes": int((counted == label).sum()),
            "AP": _or_none(precision[:, place].mean()),
            "AP50": _or_none(precision[0, place]),
        }
    return total, classes


def coco_evaluation(found: DetectionTable, truth: ImageSet) -> Any:
    """pycocotools' evaluation, its detections matched and not yet accumulated; it prints while it works."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    pair = []
    for annotations in (_truth_as_coco(truth), _found_as_coco(found, truth)):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": number} for number in truth.ids.tolist()],
            "categories": [{"id": number} for number in truth.category_ids.tolist()],
            "annotations": annotations,
        }
        coco.createIndex()
        pair.append(coco)
    evaluation = COCOeval(*pair, iouType="bbox")
    evaluation.evaluate()
    return evaluation


def voc_scores(found: DetectionTable, truth: ImageSet) -> Scores:
    """VOC2007's 11-point metric (AP, AP50, AP75), and VOC2010's area under the curve at IoU 0.5.

    A detection answers to the box of its class with which it overlaps most, and is right if nobody better did;
    what answers to a difficult box does not count. Pixels are continuous: no "+1".

    Source: Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010, section 4.2.
    """
    order = np.argsort(-found.scores, kind="stable")
    labels = found.labels[order]
    best, iou = (column[order] for column in _best_box(found, truth))
    ignored = truth.difficult | truth.crowd
    thresholds = np.arange(50, 100, 5) / 100

    def mean(average: Callable[..., float], at: float) -> float | None:
        values = []
        for label in range(len(truth.categories)):
            objects = int(((truth.labels == label) & ~ignored).sum())
            if objects:
                rows = labels == label
                values.append(average(*_right_and_wrong(best[rows], iou[rows] > at, ignored), objects))
        return float(np.mean(values)) if values else None

    eleven = {round(float(at), 2): mean(eleven_point_average, at) for at in thresholds}
    whole = [value for value in eleven.values() if value is not None]
    return {
        "AP_voc07": float(np.mean(whole)) if whole else None,
        "AP50_voc07": eleven[0.5],
        "AP75_voc07": eleven[0.75],
        "AP50_voc10": mean(area_average, 0.5),
    }


def eleven_point_average(right: NDArray[np.bool_], wrong: NDArray[np.bool_], objects: int) -> float:
    """Mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or beyond (VOC2007).

    `right` and `wrong` are in the order of falling scores; what is neither does not count.
    """
    precision, recall = _precision_and_recall(right, wrong, objects)
    return float(np.mean([precision[recall >= goal / 10].max(initial=0.0) for goal in range(11)]))


def area_average(right: NDArray[np.bool_], wrong: NDArray[np.bool_], objects: int) -> float:
    """Area under the curve of precision, made to fall, over recall (VOC2010 and later)."""
    precision, recall = _precision_and_recall(right, wrong, objects)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * falling).sum())


def _or_none(value: float) -> float | None:
    """A score of pycocotools, which says -1 where there is no box."""
    return float(value) if value >= 0 else None


def _precision_and_recall(
    right: NDArray[np.bool_], wrong: NDArray[np.bool_], objects: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    hits, misses = np.cumsum(right), np.cumsum(wrong)
    return hits / np.maximum(hits + misses, 1), hits / objects


def _right_and_wrong(
    best: NDArray[np.int64], reaches: NDArray[np.bool_], ignored: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of detections in falling order of scores: which is the first to reach its box, and which is wrong."""
    right = np.zeros(len(best), dtype=bool)
    reaching = np.flatnonzero(reaches)
    right[reaching[np.unique(best[reaching], return_index=True)[1]]] = True
    counts = np.ones(len(best), dtype=bool)
    counts[reaching] = ~ignored[best[reaching]]
    return right & counts, ~right & counts


def _best_box(found: DetectionTable, truth: ImageSet) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For every detection the row of the box of its class with the highest IoU, and that IoU; else 0 and 0."""
    best, iou = np.zeros(len(found.scores), np.int64), np.zeros(len(found.scores))
    place_of = {number: place for place, number in enumerate(truth.ids.tolist())}
    images, starts, counts = np.unique(found.image_ids, return_index=True, return_counts=True)
    for image, start, count in zip(images.tolist(), starts, counts, strict=True):
        rows = slice(start, start + count)
        first, end = truth.offsets[place_of[image] : place_of[image] + 2]
        if first < end:
            overlaps = _pairwise_iou(found.boxes[rows], truth.boxes[first:end])
            overlaps[found.labels[rows][:, None] != truth.labels[first:end]] = -1.0
            best[rows] = first + overlaps.argmax(axis=1)
            iou[rows] = overlaps.max(axis=1)
    return best, iou


def _pairwise_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(min=0.0)
    shared = sides.prod(axis=-1)
    union = (a[..., 2:] - a[..., :2]).prod(axis=-1) + (b[..., 2:] - b[..., :2]).prod(axis=-1) - shared
    return shared / np.maximum(union, np.finfo(np.float64).tiny)


def _truth_as_coco(truth: ImageSet) -> list[dict[str, object]]:
    boxes = truth.boxes.astype(np.float64)
    image_ids = np.repeat(truth.ids, truth.boxes_per_image())
    # pycocotools overwrites `ignore` by `iscrowd`, and any number of detections match a crowd. What lies outside of a
    # range of areas it ignores one to one, and no range has areas below 0.
    areas = np.where(truth.difficult, -1.0, truth.areas)
    return [
        {"id": row, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for row, (image, category, box, area, crowd) in enumerate(
            zip(
                image_ids.tolist(),
                truth.category_ids[truth.labels].tolist(),
                np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist(),
                areas.tolist(),
                truth.crowd.tolist(),
                strict=True,
            ),
            start=1,  # pycocotools takes the id 0 for "matched nothing"
        )
    ]


def _found_as_coco(found: DetectionTable, truth: ImageSet) -> list[dict[str, object]]:
    rows = found.as_coco(truth.category_ids)
    areas = (found.boxes[:, 2:] - found.boxes[:, :2]).astype(np.float64).prod(axis=1)
    return [
        {**row, "id": place, "area": area, "iscrowd": 0}
        for place, (row, area) in enumerate(zip(rows, areas.tolist(), strict=True), start=1)
    ]
