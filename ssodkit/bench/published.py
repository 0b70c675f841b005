"""Published numbers: what a table of results is compared with, each with the place where it is printed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, model_validator

from ssodkit.plugins import Config
from ssodkit.recipe.read import Mistake, Place, read_yaml_file, refuse, shipped_folder
from ssodkit.recipe.validate import validate_list

Method = Literal[
    "supervised",
    "acrst",
    "consistent_teacher",
    "csd",
    "dense_teacher",
    "dsl",
    "efficient_teacher",
    "humble_teacher",
    "instant_teaching",
    "instant_teaching_star",
    "labelmatch",
    "mean_teacher",
    "mixpl",
    "omni_detr",
    "proposal_learning",
    "pseco",
    "s4od",
    "sa_autoaug",
    "semi_detr",
    "soft_teacher",
    "stac",
    "unbiased_teacher",
    "unbiased_teacher_v2",
]
Detector = Literal[
    "faster_rcnn_r50",
    "faster_rcnn_r101",
    "cascade_rcnn_r50",
    "cascade_rcnn_r152",
    "mask_rcnn_r50",
    "htc_swin_l",
    "retinanet_r50",
    "retinanet_r101",
    "fcos_r50",
    "fcos_r101",
    "dense_detector_r50",
    "yolov5_s",
    "yolov5_m",
    "yolov5_l",
    "ssd300",
    "ssd512",
    "rfcn_r101",
    "deformable_detr_r50",
    "dino_r50",
    "dino_r50_5scale",
    "dino_swin_l",
    "dino_swin_l_5scale",
]
Setting = Literal[
    "coco_standard",
    "coco_additional",
    "coco_full",
    "coco_per_class",
    "voc07_voc12",
    "voc07_voc12_coco20",
    "voc07_voc12_coco80",
    "voc0712",
    "voc07_part",
    "voc_per_class",
]
Metric = Literal[
    "AP",
    "AP50",
    "AP75",
    "AP_S",
    "AP_voc07",
    "AP50_voc07",
    "AP_test_dev",
    "mask_AP_test_dev",
    "AP_gain",
    "pseudo_precision",
    "pseudo_recall",
    "pseudo_per_image",
]
Origin = Literal["paper", "repository", "reproduction"]
"""Most trusted first."""

SHARES = ("coco_standard", "voc07_part")
"""Settings that label a share of the images, said by `percent`."""


class Published(Config):
    """One published number. The head of `benchmarks/published.yaml` says what the names mean."""

    method: Method
    detector: Detector
    setting: Setting
    percent: float | None = Field(None, gt=0.0, le=100.0)
    """Share of the training images that is labeled, in the settings that have one."""
    metric: Metric
    value: float = Field(gt=0.0, le=100.0)
    """In points, as papers print it; `pseudo_per_image` is a count."""
    spread: float | None = Field(None, ge=0.0, le=100.0)
    """The printed +/-, in points."""
    network: Literal["teacher", "student"] | None = None
    """Which one was scored; None where it is not known, or there is one network."""
    variant: str | None = Field(None, min_length=1)
    """None for a method's main row; else the ablation's row in words, or how this run differs from the main one."""
    origin: Origin = "paper"
    """Whose number it is: the authors' paper, their repository, or somebody else's run of the method."""
    source: str = Field(min_length=1)
    unconfirmed: bool = False
    """The number, or what it was measured on, could not be checked."""
    note: str | None = Field(None, min_length=1)
    """What a reader would be misled without: another schedule, another batch, beside which method it was printed."""

    @model_validator(mode="after")
    def _percent_where_there_is_one(self) -> "Published":
        if (self.percent is None) == (self.setting in SHARES):
            verb = "needs a" if self.setting in SHARES else "has no"
            raise ValueError(f"the setting '{self.setting}' {verb} `percent`")
        return self

    @property
    def key(self) -> tuple[str | float | None, ...]:
        """What only one entry of a list may have."""
        where = (self.method, self.detector, self.setting, self.percent)
        return (*where, self.metric, self.variant, self.origin, self.source)

    def is_of(self, source: str) -> bool:
        """Whether its source or its note says this."""
        return source in self.source or source in (self.note or "")


def shipped_benchmarks() -> Path:
    """The suites and published numbers that come with the package."""
    return shipped_folder("benchmarks")


def read_published(path: Path | None = None) -> tuple[Published, ...]:
    """The entries of a file, by default of the one that comes with the package; none if it is empty.

    Raises RecipeError with one line per mistake: `file:line:column entry.key: what is wrong`.
    """
    path = path or shipped_benchmarks() / "published.yaml"
    mistakes: list[Mistake] = []
    written = read_yaml_file(path, mistakes)
    refuse(mistakes)
    if written is None:
        return ()
    if not isinstance(written.value, list):
        refuse([Mistake(written.place, "", "published numbers are a list of entries, each `- {method: ..., ...}`")])
    entries = validate_list(Published, written)
    refuse(_twice(entries, [item.place for item in written.value]))
    return entries


def find_published(
    entries: Iterable[Published],
    *,
    method: str,
    detector: str,
    setting: str,
    percent: int | float | None,
    metric: str,
    variant: str | None = None,
    source: str | None = None,
) -> Published | None:
    """The number to print beside a result: confirmed if one is, of the most trusted origin, a main row by default.

    `source` is part of the entry's source or note, where several have published a number; None: any will do.
    Of equals it is the first. None where nothing is published.
    """
    wanted = (method, detector, setting, percent, metric, variant)
    rows = [row for row in entries if row.key[:6] == wanted and (source is None or row.is_of(source))]
    return min(rows, key=lambda row: (row.unconfirmed, get_args(Origin).index(row.origin)), default=None)


def _twice(entries: Iterable[Published], places: list[Place]) -> list[Mistake]:
    first: dict[tuple[str | float | None, ...], Place] = {}
    mistakes = []
    for index, (entry, place) in enumerate(zip(entries, places, strict=True)):
        if first.setdefault(entry.key, place) is not place:
            text = f"this row of this source stands twice; first in line {first[entry.key].line}"
            mistakes.append(Mistake(place, str(index), text))
    return mistakes
