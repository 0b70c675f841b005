"""Two steps of training without data, files or an engine: what any recipe's parts are tried with."""

import torch
from tiny import make_semi_batch, with_stored_labels

from ssodkit.engine.build import build_method
from ssodkit.methods.pseudo_label import PseudoLabelConfig
from ssodkit.recipe.model import Recipe
from ssodkit.structures.progress import Progress


def take_two_steps(recipe: Recipe, load_weights: bool = False) -> dict[str, float]:
    """The losses of the second. Fails unless they are finite, every parameter that learns has a gradient, and
    pseudo-labels are taught."""
    torch.manual_seed(0)
    views = recipe.method.needs_views.get("unlabeled", ())
    method, batch = (
        build_method(recipe, num_classes=3, load_weights=load_weights),
        with_stored_labels(make_semi_batch(views)),
    )
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
    return {name: value.item() for name, value in values.items()}
