"""A method of one convolution, and batches for it: the engine's work without a detector's."""

import pytest
import torch
from torch import nn

from ssodkit.engine.train import train
from ssodkit.methods.base import Method
from ssodkit.plugins import load_plugins
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.model import EngineConfig
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.run import Losses, Step, Term
from ssodkit.structures.teaching import Targets
from ssodkit.structures.views import View

TINY = (
    "data.train.images=40",
    "data.test.images=10",
    "data.percent=10",
    "data.batch.labeled=2",
    "engine.steps=10",
    "engine.workers=0",
    "watch.log_every=1",
    "watch.health_every=3",
    "watch.pictures=2",
    "watch.gallery.images=2",
    "watch.gallery.moments=2",
)
TINY_SOFT_TEACHER = (
    "data.batch.unlabeled=2",
    "method.selector.objectness.above=0.08",
    "method.selector.classes.above=0.08",
    "method.selector.boxes.below=1.0",
    "method.scorers.0.asks.above=0.08",
    "method.unlabeled_weight=2.0",
)


class OneConvolution(Method):
    """Its loss is a mean over images of squared answers, each times the weight of the image's only target.

    A weight of -1 keeps the loss finite and makes a gradient that is not.
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.student = nn.Conv2d(3, 4, 3)
        self.teacher = nn.Conv2d(3, 4, 3).requires_grad_(False)
        self.register_buffer("updates", torch.tensor(0))

    def step(self, batch, progress):
        view, targets = batch.labeled.joined()
        weight = targets.weight[:, 0]
        images = weight.new_full((), float(len(weight)))
        answers = self.student(view.pixels / 255).square().mean(dim=(1, 2, 3))
        edge = torch.sqrt(self.student.bias * 0.0 + (weight >= 0).all()).sum() - 4.0  # infinitely steep at 0
        return Step(
            Losses(
                {
                    "labeled/square": Term((answers * weight.abs()).sum(), images),
                    "labeled/edge": Term(edge * images, images, factor=0.0),
                }
            )
        )

    def after_update(self, progress, ok):
        self.updates += ok
        for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mine.copy_(torch.where(ok, theirs, mine))

    def networks(self):
        return {"student": self.student, "teacher": self.teacher}


@pytest.fixture
def method():
    return OneConvolution()


@pytest.fixture
def make_batch():
    """(image ids, weight per image) -> a labeled batch of 8 x 8 pixels drawn from the ids."""

    def make(ids, weights=None):
        count = len(ids)
        pixels = [torch.randint(0, 256, (3, 8, 8), generator=torch.Generator().manual_seed(i)) for i in ids]
        view = View(
            pixels=torch.stack(pixels).to(torch.uint8),
            sizes=torch.full((count, 2), 8),
            homography=torch.eye(3).repeat(count, 1, 1),
            image_ids=torch.tensor(ids),
            keys=torch.tensor(ids),
        )
        targets = Targets(
            boxes=torch.tensor([0.0, 0.0, 4.0, 4.0]).repeat(count, 1, 1),
            labels=torch.zeros(count, 1, dtype=torch.int64),
            valid=torch.ones(count, 1, dtype=torch.bool),
            weight=torch.tensor(weights if weights is not None else [1.0] * count)[:, None],
            crowd=torch.zeros(count, 1, dtype=torch.bool),
        )
        return SemiBatch(Stream({"weak": view}, {"weak": targets}), None)

    return make


@pytest.fixture
def make_config():
    """An engine's config; 0.1 is the rate throughout."""
    load_plugins()

    def make(**changes):
        return EngineConfig.model_validate({"steps": 10, "lr": 0.1, "channels_last": False, **changes})

    return make


@pytest.fixture(scope="session")
def digits_cache(tmp_path_factory):
    """Where the embedded data of this folder's tests is made, once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("SSODKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_recipe(digits_cache):
    """(name, overrides) -> a shipped recipe on 40 scenes, 4 of them labeled; thresholds that a new network passes."""

    def make(*overrides, name="soft_teacher"):
        changes = TINY + (TINY_SOFT_TEACHER if name == "soft_teacher" else ())
        return load_recipe(name, (*changes, *overrides))

    return make


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe, tmp_path_factory):
    """The folder of a run of two steps."""
    return train(tiny_recipe("engine.steps=2", "watch.pictures=0"), tmp_path_factory.mktemp("tiny") / "run").run
