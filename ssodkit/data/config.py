"""The `data` part of a recipe: which images, which of them with labels, and how many of each in a step."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from ssodkit.data.shares import Share
from ssodkit.plugins import Config

MOST_CLASSES = 32_767
"""What labels are stored in holds so many."""


def _refuse_twice(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if names is not None and len(set(names)) < len(names):
        raise ValueError(f"'{max(names, key=names.count)}' stands here twice")
    return names


ClassNames = Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_CLASSES), AfterValidator(_refuse_twice)]
"""Class names that differ; their order is that of the labels."""


def _path_of_list(split: str | Path) -> str | Path:
    return Path(split) if str(split).endswith(".txt") else split


class CocoSource(Config):
    """Images and boxes described by one COCO JSON file."""

    type: Literal["coco"] = "coco"
    annotations: Path
    images: Path
    """Folder that the file names in the annotation file are relative to; names that a labeling tool has decorated are
    found below it."""
    zero_size_boxes: Literal["refuse", "drop"] = "refuse"
    """Boxes without width or height; COCO's train2017 has two."""


class VocSource(Config):
    """Pascal VOC: an XML file for each image, in the folders of the VOC devkit or in any others."""

    type: Literal["voc"] = "voc"
    root: Path
    """The folder of all of it, such as VOCdevkit/VOC2007."""
    images: Path | None = None
    """Folder of the images; null: JPEGImages or images in `root`, or the only folder there that holds images."""
    annotations: Path | None = None
    """Folder of the XML files; null: Annotations in `root`, or the only folder there that holds XML files."""
    split: Annotated[str | Path, AfterValidator(_path_of_list)] | None = None
    """A list in ImageSets/Main of `root`, such as trainval, or the path of a list of names that ends in .txt; null: all
    that is annotated."""
    difficult: Literal["drop", "ignore"] = "drop"
    """What training does with boxes tagged difficult; evaluation ignores them."""
    classes: ClassNames | None = None
    """Null: the names that the annotations hold, sorted."""
    zero_size_boxes: Literal["refuse", "drop"] = "refuse"
    """Boxes without width or height."""


class YoloSource(Config):
    """YOLO text labels: a data.yaml, or folders of images and labels."""

    type: Literal["yolo"] = "yolo"
    root: Path
    """The data.yaml, or a folder with one, or with `images` and `labels`, or with label files beside images."""
    split: str | None = None
    """train, val or test; null where there is only one of them, or none."""
    classes: ClassNames | None = None
    """Their names by number; null: as the data.yaml or a classes.txt says."""
    zero_size_boxes: Literal["refuse", "drop"] = "refuse"
    """Boxes without width or height."""


class DigitsSource(Config):
    """The embedded data: handwritten digits on photographs, made on first use and kept in a cache folder."""

    type: Literal["digits"] = "digits"
    part: Literal["train", "val"]
    level: Literal["easy", "hard"] = "easy"
    images: int = Field(2000, ge=1, le=1_000_000)
    side: int = Field(96, ge=32, le=4096)
    """Pixels; images are square."""
    seed: int = Field(0, ge=0, lt=2**32)


class FolderSource(Config):
    """A plain folder of images, searched with its subfolders, without labels."""

    type: Literal["folder"] = "folder"
    images: Path


class RestSource(Config):
    """The images of `data.train` that are not in the labeled fold, their labels hidden."""

    type: Literal["rest"] = "rest"
    include_labeled: bool = False
    """Whether the labeled images are unlabeled images as well."""


class HeldOutSource(Config):
    """A part of the labeled images of `data.train`, which train in no way: each class gives its share, rare ones at
    least an image.

    As `data.test` it is taken before the labeled images are drawn: the same for every fold and number of labels. As
    `data.validation` it is taken of the labeled images of the fold, once they are drawn: of draws that are nested,
    those that train and those that validate are nested together, not each.
    """

    type: Literal["held_out"] = "held_out"
    percent: float = Field(20.0, gt=0.0, lt=100.0)


def _form_of(value: object) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


_Annotated = CocoSource | VocSource | YoloSource | DigitsSource
_BY_TYPE = Field(discriminator="type")
LabeledSource = Annotated[_Annotated, _BY_TYPE]
EvaluationSource = Annotated[_Annotated | HeldOutSource, _BY_TYPE]
_OwnImages = Annotated[FolderSource | _Annotated, _BY_TYPE]
ImageSource = Annotated[RestSource | FolderSource | _Annotated, _BY_TYPE]
ReadSource = FolderSource | CocoSource | VocSource | YoloSource | DigitsSource
"""What has files of its own."""

# A list of sources is one set: its images come in this order, its classes are joined by name.
_Labeled = Annotated[tuple[LabeledSource, ...], Field(min_length=1), Tag("several")]
_Own = Annotated[tuple[_OwnImages, ...], Field(min_length=1), Tag("several")]
LabeledSources = Annotated[Annotated[LabeledSource, Tag("one")] | _Labeled, Discriminator(_form_of)]
EvaluationSources = Annotated[Annotated[EvaluationSource, Tag("one")] | _Labeled, Discriminator(_form_of)]
ImageSources = Annotated[Annotated[ImageSource, Tag("one")] | _Own, Discriminator(_form_of)]


S = TypeVar("S", bound=Config)


def sources_of(sources: S | tuple[S, ...] | None) -> tuple[S, ...]:
    """One source or a list of them, as a list."""
    return () if sources is None else sources if isinstance(sources, tuple) else (sources,)


class StoredSource(Config):
    """Unlabeled images with boxes that a network found in them before the run: no teacher is in the step.

    An image keeps the boxes that are sure enough, or its best; images without a box leave the list.
    """

    type: Literal["stored"] = "stored"
    file: Path | None = None
    """What `ssodkit label` wrote."""
    made_by: str | None = None
    """Instead: the recipe that the run trains first, on the same data, fold and seed. It then labels the images."""
    made_with: tuple[str, ...] = ()
    """Changes of that recipe, as `--set` takes them. The command line's join them: those of engine, detector,
    evaluation, watch, and the labeled images of a step."""
    made_at: Literal["test", "original"] = "test"
    """The size in which that recipe's network sees the images when it labels them: that of its test view, or their own
    (STAC's code)."""
    of: ImageSources = RestSource()
    """The images."""
    above: float = Field(0.9, ge=0.0, le=1.0)
    """Boxes that score so much or more teach."""
    at_least: int = Field(1, ge=0)
    """So many of the best boxes of an image teach in any case, and those that score as much."""

    @model_validator(mode="after")
    def _one_origin(self) -> "StoredSource":
        if (self.file is None) == (self.made_by is None):
            raise ValueError("give either `file` or `made_by`; null takes one away that a base has set")
        if self.made_with and self.made_by is None:
            raise ValueError("`made_with` changes the recipe that `made_by` names, and there is none")
        if self.made_at != "test" and self.made_by is None:
            raise ValueError("`made_at` says how the recipe of `made_by` labels, and there is none; leave it at `test`")
        return self


UnlabeledSource = Annotated[RestSource | FolderSource | _Annotated | StoredSource, _BY_TYPE]
UnlabeledSources = Annotated[Annotated[UnlabeledSource, Tag("one")] | _Own, Discriminator(_form_of)]


class ListFolds(Config):
    """Explicit lists: JSON percent -> run -> positions in the id-sorted list of images that have a box."""

    type: Literal["list"] = "list"
    file: Path


class LabeledRule(Config):
    """What is done with unusual labeled images."""

    empty_images: Literal["keep", "drop"] = "keep"
    """Images without a box that can be learned."""
    crowd: Literal["ignore", "drop"] = "ignore"
    """Crowd boxes: what lies in them is ignored, or they are forgotten."""
    minimum_side: int = Field(0, ge=0)
    """Pixels; images with a smaller side are left out."""
    at_most: int = Field(300, ge=1)
    """Boxes per image; the largest are kept, and the run says how many were not."""


class BrokenRule(Config):
    """What is done with image files that are no whole images, or of another size than annotated."""

    skip: bool = False
    """Whether the run goes on without them; else it stops and names them. Those that are found before step 1 are left
    out; of one that breaks later, others take its place in the steps. No test image is skipped once it was scored."""
    at_most: float = Field(0.01, ge=0.0, le=1e9)
    """So many are skipped, of all images that the run opens: a share of them below 1, a number from 1 on."""

    @field_validator("at_most")
    @classmethod
    def _whole_from_one_on(cls, at_most: float) -> float:
        if at_most >= 1.0 and at_most != int(at_most):
            raise ValueError(f"a share lies below 1, and a number of images is whole: {at_most:g} is neither")
        return at_most

    def allowed(self, images: int) -> int:
        """How many of so many images are skipped."""
        return 0 if not self.skip else int(self.at_most if self.at_most >= 1.0 else self.at_most * images)


class BatchConfig(Config):
    """Images of one step, over all processes together."""

    labeled: int = Field(ge=1, le=65_536)
    unlabeled: int = Field(0, ge=0, le=65_536)
    composition: Literal["fixed", "random"] = "fixed"
    """`random` draws for each slot of a group which kind it holds, at least one of each kind (Soft Teacher)."""
    group: int = Field(0, ge=0)
    """Slots that are drawn together where the composition is random; 0: all of the batch."""
    same_orientation: bool = False
    """All images of a stream in one step are landscape, or all are portrait."""

    @property
    def slots(self) -> int:
        """Images of one step, of both kinds."""
        return self.labeled + self.unlabeled

    @property
    def group_slots(self) -> int:
        """Images of one group: all of the step's where `group` is 0."""
        return self.group or self.slots

    @model_validator(mode="after")
    def _groups_hold_both_kinds(self) -> "BatchConfig":
        if self.composition == "fixed":
            if self.group:
                raise ValueError("batch.group has a meaning only with `composition: random`")
            return self
        if not self.unlabeled:
            raise ValueError("batch.composition is random, but batch.unlabeled is 0: there is nothing to draw")
        if self.group_slots < 2 or self.slots % self.group_slots:
            raise ValueError(
                f"batch.group is {self.group}; it must be 2 or more and divide the {self.slots} images of a step"
            )
        return self


class DataConfig(Config):
    """Which images, and how many of each kind in a step."""

    train: LabeledSources
    """A source, or a list of them: their images in this order, their classes joined by name. So everywhere below."""
    test: EvaluationSources
    """What results are measured on."""
    validation: EvaluationSources | None = None
    """A set that is not the test set; only with it a best checkpoint is kept."""
    percent: float = Field(100.0, gt=0.0, le=100.0)
    """Share of `train` whose labels are used."""
    shots: int | None = Field(None, ge=1)
    """Instead of a share: so many labeled images of each class, where it has as many. Of one fold, the images of fewer
    shots are among those of more."""
    fold: int = Field(1, ge=0, lt=2**32)
    """Which draw of that share, or of the shots."""
    folds: Literal["stac", "soft_teacher"] | ListFolds = "stac"
    """How a share is drawn; see docs/fidelity.md."""
    labeled: LabeledRule = LabeledRule()
    broken: BrokenRule = BrokenRule()
    unlabeled: UnlabeledSources | None = RestSource()
    batch: BatchConfig

    @property
    def share(self) -> Share:
        """How many of `train` have labels."""
        return Share(self.percent, self.shots)

    @property
    def unlabeled_images(self) -> ImageSources | None:
        """Where the unlabeled images are, whether or not boxes of them are stored."""
        return self.unlabeled.of if isinstance(self.unlabeled, StoredSource) else self.unlabeled

    def labeled_by(self, file: Path) -> "DataConfig":
        """The same data, its stored boxes in this file, which the run has made."""
        assert isinstance(self.unlabeled, StoredSource)
        return self.model_copy(update={"unlabeled": self.unlabeled.model_copy(update={"file": file})})

    @model_validator(mode="after")
    def _one_way_to_say_how_many(self) -> "DataConfig":
        if self.shots is not None and self.percent != 100.0:
            raise ValueError(
                f"data.shots is {self.shots} and data.percent {self.percent:g}, and both say how many images are "
                "labeled: set data.percent to 100, or data.shots to null"
            )
        return self

    @model_validator(mode="after")
    def _unlabeled_needs_a_source(self) -> "DataConfig":
        if self.batch.unlabeled and self.unlabeled is None:
            raise ValueError("batch.unlabeled is above 0, but data.unlabeled names no images")
        return self

    @model_validator(mode="after")
    def _difficult_boxes_of_all_sources_are_one_matter(self) -> "DataConfig":
        rules = {source.difficult for source in sources_of(self.train) if isinstance(source, VocSource)}
        if len(rules) > 1:
            raise ValueError("some sources of data.train drop difficult boxes, others ignore them; say one of both")
        return self

    @model_validator(mode="after")
    def _validation_is_not_the_test_set(self) -> "DataConfig":
        test, validation = sources_of(self.test), sources_of(self.validation)
        if validation and all(source in test for source in validation) and not isinstance(self.test, HeldOutSource):
            raise ValueError("data.validation is data.test; a checkpoint chosen on the test set proves nothing")
        return self
