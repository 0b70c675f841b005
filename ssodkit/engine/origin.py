"""The origin of a checkpoint: the recipe, plug-ins, classes and labeled images that it belongs to."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ssodkit.data.annotations import Category
from ssodkit.engine.nested import flatten
from ssodkit.errors import TrainingError
from ssodkit.plugins import PluginConfig
from ssodkit.recipe.model import Recipe


@dataclass(frozen=True)
class Origin:
    """What a checkpoint belongs to. It is refused where any of these differs."""

    recipe: dict[str, Any]
    """Resolved, as JSON values; where plug-in files lie and how many workers load images does not count."""
    plugins: dict[str, str]
    """`slot/type` -> the class that defines it, of every plug-in in the recipe."""
    categories: tuple[Category, ...]
    """In the order of the class labels."""
    fold: str
    """Hash of the labeled image ids."""

    @classmethod
    def of(cls, recipe: Recipe, categories: tuple[Category, ...], fold: str) -> "Origin":
        """The origin of a run's checkpoints."""
        return cls(_what_counts(recipe), _plugins_of(recipe), categories, fold)

    def as_state(self) -> dict[str, Any]:
        """In plain types, as a checkpoint holds it."""
        return {**asdict(self), "categories": [list(category) for category in self.categories]}

    def refuse_other(self, saved: Mapping[str, Any], where: Path) -> None:
        """Raise TrainingError if the origin `saved` in the checkpoint at `where` is another one."""
        for what, here, there in (
            ("recipe", flatten(self.recipe), flatten(_as_understood_today(saved["recipe"]))),
            ("set of plug-ins", self.plugins, saved["plugins"]),
            ("class table", _by_label(self.categories), _by_label(saved["categories"])),
            ("labeled fold", {"hash": self.fold}, {"hash": saved["fold"]}),
        ):
            differences = [
                f"{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} here"
                for key in sorted({*here, *there}, key=str)
                if here.get(key) != there.get(key)
            ]
            if differences:
                more = f"; and {len(differences) - 4} more" if len(differences) > 4 else ""
                raise TrainingError(
                    f"{where} is a checkpoint with another {what} ({'; '.join(differences[:4])}{more}). "
                    "Go on with what it was made with, or start a new run."
                )


def _what_counts(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", exclude={"plugins": True, "engine": {"workers"}})


def _as_understood_today(saved: dict[str, Any]) -> dict[str, Any]:
    """A recipe that counted, with the fields that were added to recipes since; as it is where it is none any more."""
    try:
        return _what_counts(Recipe.model_validate(saved))
    except ValidationError:
        return saved


def _by_label(categories: Iterable[Iterable[object]]) -> dict[str, str]:
    pairs = enumerate(categories)
    return {f"class {label}": " ".join(str(part) for part in pair) for label, pair in pairs}


def _plugins_of(value: object) -> dict[str, str]:
    found: dict[str, str] = {}
    if isinstance(value, PluginConfig):
        found[f"{value.slot}/{value.type}"] = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, BaseModel):
        parts = [getattr(value, name) for name in type(value).model_fields]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    else:
        parts = list(value) if isinstance(value, list | tuple) else []
    for part in parts:
        found |= _plugins_of(part)
    return found
