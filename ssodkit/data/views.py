"""Views of a recipe: lists of transforms, drawn per image, applied to whole batches with one resampling."""


from pydantic import Field, model_validator

from ssodkit.data.augment.base import TransformConfig
from ssodkit.plugins import Config, Slot


class ViewConfig(Config):
    """One view: its transforms, in order. A plain list in its place means its `transforms`."""

    transforms: tuple[Slot[TransformConfig], ...] = ()
    draws_as: str | None = None
    """Draw with the key of this other view of the stream: same transforms then draw the same, as shared geometry."""

    @model_validator(mode="before")
    @classmethod
    def _list_is_transforms(cls, value: object) -> object:
        return {"transforms": value} if isinstance(value, list | tuple) else value


class ViewsConfig(Config):
    """The views of labeled, unlabeled and test images."""

    labeled: dict[str, ViewConfig]
    """Every labeled view teaches."""
    unlabeled: dict[str, ViewConfig] = {}
    test: ViewConfig = ViewConfig()
    minimum_visible: float = Field(0.0, ge=0.0, le=1.0)
    """Boxes of which less than this share stays inside a view are dropped from it."""
    pad_to: int = Field(32, ge=1)
    """Canvas sides are multiples of this."""

    @model_validator(mode="after")
    def _draws_as_names_a_view(self) -> "ViewsConfig":
        for stream in (self.labeled, self.unlabeled):
            for name, view in stream.items():
                if view.draws_as is not None and (view.draws_as not in stream or view.draws_as == name):
                    raise ValueError(f"view '{name}' draws as '{view.draws_as}', which is no other view of its stream")
        return self
