"""A recipe that uses every kind of key, and a way to load variations of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pages import forgetting

from ssodkit.errors import RecipeError
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.trust import remember

TOY_PARTS = Path(__file__).with_name("toy_parts.py")
TOY_RECIPE = f"""\
name: toy
plugins: [{TOY_PARTS}]
data:
  train: {{type: digits, part: train}}
  test: {{type: digits, part: val}}
  percent: 2.5
  batch: {{labeled: 4, unlabeled: 8}}
views:
  labeled: {{weak: []}}
  unlabeled:
    weak: []
    strong: {{transforms: [], draws_as: weak}}
detector:
  type: toy_two_stage
  backbone: {{type: toy_backbone, weights: local, frozen_stages: 1}}
  stages:
    rpn:
      matcher: {{type: toy_adaptive}}
      terms:
        class: {{taught_by: objectness, criterion: {{type: binary}}, normalizer: sampled}}
        box: {{taught_by: objectness, criterion: {{type: l1}}, normalizer: sampled}}
    roi:
      matcher: {{type: toy_plain, positive: 0.5}}
      sampler: {{per_image: 512, positive_share: 0.25}}
      terms:
        class: {{taught_by: classes, criterion: {{type: softmax}}, normalizer: sampled}}
        box: {{taught_by: boxes, criterion: {{type: l1}}, normalizer: sampled}}
method:
  type: toy_method
  unlabeled_weight: 4.0
  scorers:
    - {{type: toy_sure}}
    - type: toy_jitter
      draws: 5
      asks: {{score: toy_sure, above: 0.5}}
  selector:
    type: toy_selector
    boxes: {{score: toy_jitter, below: 0.02}}
engine:
  steps: 100
  lr: {{type: toy_drops, value: 1e-2, warmup: 10, drops: [60, 80 %, never]}}
"""

Load = Callable[..., Recipe]
Refused = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[None]:
    """Toy plug-ins are trusted, and do not reach other tests."""
    remember([str(TOY_PARTS)])
    with forgetting(TOY_PARTS.stem):
        yield


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The toy recipe in a file of its own."""
    path = tmp_path / "toy.yaml"
    path.write_text(TOY_RECIPE)
    return path


@pytest.fixture
def load_changed(toy: Path) -> Load:
    """Loads the toy recipe with one piece of its text replaced."""

    def load(old: str = "", new: str = "", overrides: tuple[str, ...] = ()) -> Recipe:
        assert old in TOY_RECIPE
        toy.write_text(TOY_RECIPE.replace(old, new, 1))
        return load_recipe(toy, overrides)

    return load


@pytest.fixture
def refused(load_changed: Load, toy: Path) -> Refused:
    """The lines of the error that a change of the toy recipe ends in, without the path of the file."""

    def lines(old: str = "", new: str = "", overrides: tuple[str, ...] = ()) -> list[str]:
        with pytest.raises(RecipeError) as refusal:
            load_changed(old, new, overrides)
        return [line.removeprefix(f"{toy}:") for line in str(refusal.value).splitlines()]

    return lines
