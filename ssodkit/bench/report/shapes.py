"""What a report draws of the lines of a run's log and gallery, and of its result: what was harmed has another shape."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

Scores = dict[str, dict[str, dict[str, float | None]]]
"""Test threshold -> network -> metric -> fraction."""


class _Step(BaseModel):
    losses: dict[str, float | None]
    images_per_second: float
    memory_gb: float


class _Evaluation(BaseModel):
    set: str
    thresholds: Scores | None = None


class _Health(BaseModel):
    boxes_per_image: float
    labeled_boxes_per_image: float
    boxes_per_class: dict[str, int] | None = None


class _Boxes(BaseModel):
    boxes: list[tuple[float, float, float, float]]
    labels: list[int]


class _Detections(_Boxes):
    scores: list[float]


class _Found(_Boxes):
    scores: dict[str, list[float | None]]
    verdict: list[str]


class _Image(BaseModel):
    id: int
    size: tuple[int, int]
    truth: _Boxes | None
    found: _Found | None
    detections: dict[str, _Detections]


class _Moment(BaseModel):
    images: list[_Image]


class _Source(BaseModel):
    commit: str | None
    clean: bool | None


class _Result(BaseModel):
    step: int
    thresholds: Scores
    seconds: float | None = None
    sources: list[_Source] = []


_LINES: Mapping[str, type[BaseModel]] = {
    "step": _Step,
    "evaluation": _Evaluation,
    "health": _Health,
    "moment": _Moment,
}
"""Kind -> shape."""


def is_whole_line(record: Mapping[str, Any]) -> bool:
    """Whether all is there that is drawn of a line of this kind; of other kinds nothing is."""
    return record["kind"] not in _LINES or _fits(record, _LINES[record["kind"]])


def is_whole_result(result: object) -> bool:
    """Whether all is there that is drawn of a result."""
    return _fits(result, _Result)


def _fits(value: object, shape: type[BaseModel]) -> bool:
    try:
        shape.model_validate(value)
    except ValidationError:
        return False
    return True
