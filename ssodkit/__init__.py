"""Semi-supervised object detection: a few labeled pictures, many without labels, a better detector.

The names below are imported on first use, so that `import ssodkit` stays light: torch comes with the first call.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssodkit.engine.evaluate import evaluate
    from ssodkit.engine.export import export
    from ssodkit.engine.label import label
    from ssodkit.engine.predict import predict
    from ssodkit.engine.review import review
    from ssodkit.engine.train import train
    from ssodkit.engine.trained import load
    from ssodkit.plugins import register
    from ssodkit.recipe.check import load_recipe

__all__ = [
    "__version__",
    "evaluate",
    "export",
    "label",
    "load",
    "load_recipe",
    "predict",
    "register",
    "review",
    "train",
]
__version__ = "0.1.0"

_HOMES = {
    "evaluate": "ssodkit.engine.evaluate",
    "export": "ssodkit.engine.export",
    "label": "ssodkit.engine.label",
    "load": "ssodkit.engine.trained",
    "load_recipe": "ssodkit.recipe.check",
    "predict": "ssodkit.engine.predict",
    "register": "ssodkit.plugins",
    "review": "ssodkit.engine.review",
    "train": "ssodkit.engine.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ssodkit' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
