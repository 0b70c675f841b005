"""Two steps of training without data, files or an engine: what any recipe's parts are tried with."""

import torch

from ssodkit.engine.build import build_method
from ssodkit.methods.pseudo_label import PseudoLabelConfig
from ssodkit.ops.random import make_key
from ssodkit.recipe.model import Recipe
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Targets
from ssodkit.structures.views import View


def take_two_steps(recipe: Recipe) -> None:
    """Fails unless losses are finite, every parameter that learns has a gradient, and pseudo-labels are taught."""
    torch.manual_seed(0)
    method, batch = build_method(recipe, num_classes=3, load_weights=False), make_batch()
    learning = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.01)
    for number in range(2):
        step = method(batch, Progress(number, recipe.engine.steps))
        values = step.losses.values(step.losses.denominators())
        assert all(value.isfinite() for value in values.values()), values
        if number == 0 and isinstance(recipe.method, PseudoLabelConfig):
            assert step.report is not None
            assert step.report.selection.supervision.classes.valid.any(), "nothing was taught"
        optimizer.zero_grad()
        torch.stack(list(values.values())).sum().backward()
        missing = [name for name, one in method.named_parameters() if one.requires_grad and one.grad is None]
        assert not missing, f"no gradient: {missing}"
        assert all(bool(one.grad.isfinite().all()) for one in learning if one.grad is not None)
        optimizer.step()
        method.after_update(Progress(number + 1, recipe.engine.steps), torch.tensor(True))


def make_batch() -> SemiBatch:
    """Two labeled images of 64 x 64 noise with boxes, and two unlabeled ones, which have stored labels as well."""
    boxes = torch.tensor([[[4.0, 4, 28, 40], [30, 20, 56, 50]], [[10, 8, 34, 44], [0, 0, 0, 0]]])
    valid = torch.tensor([[True, True], [True, False]])
    labels, crowd = torch.tensor([[0, 2], [1, 0]]), torch.zeros(2, 2, dtype=torch.bool)
    targets = Targets(boxes=boxes, labels=labels, valid=valid, weight=valid.float(), crowd=crowd)
    weak, strong, labeled = (_noise(name) for name in ("weak", "strong", "labeled"))
    return SemiBatch(
        labeled=Stream({"labeled": labeled}, {"labeled": targets}),
        unlabeled=Stream({"weak": weak, "strong": strong}, {"weak": targets, "strong": targets}),
    )


def _noise(name: str) -> View:
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(len(name)))
    return View(
        pixels=pixels.to(torch.uint8),
        sizes=torch.full((2, 2), 64),
        homography=torch.eye(3).repeat(2, 1, 1),
        image_ids=torch.arange(2),
        keys=torch.tensor([make_key(name, row) for row in range(2)]),
    )
