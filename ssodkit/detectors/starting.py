"""Starting from a whole detector that was trained before: whether its weights fit, and which classes they know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssodkit.detectors.base import Detector, DetectorConfig
from ssodkit.detectors.weight_source import Source
from ssodkit.plugins import BuildContext

NOT_WEIGHTS = ("matchers.",)
"""What a matcher has noted belongs to the training that it was noted in."""
COUNTS = "num_batches_tracked"
"""Of batch normalization; torchvision's frozen ones have none, and only those without a momentum read it."""
NAMED = 2
"""So many tensors or classes are named in a row."""


def misfit(source: Source, config: DetectorConfig) -> str | None:
    """A sentence that says why these weights are not those of such a detector, whatever its classes; None if they are.

    Nothing is computed and no memory taken: networks are made of shapes alone.
    """
    with torch.device("meta"):
        network = config.build(BuildContext(num_classes=source.count, detector=config, load_weights=False))
    wanted = {name: tuple(tensor.shape) for name, tensor in _weights(network.state_dict()).items()}
    has = {name: tuple(tensor.shape) for name, tensor in _weights(source.tensors).items()}
    found = (
        ("it lacks", [name for name in wanted if name not in has]),
        ("it also has", [name for name in has if name not in wanted]),
        ("of other shapes are", [name for name in wanted if name in has and has[name] != wanted[name]]),
    )
    said = [f"{verb} {_listed(names)}" for verb, names in found if names]
    return f"{source.what} fits {source.fits}, not this one: {'; '.join(said)}" if said else None


@dataclass(frozen=True)
class Start:
    """Weights that fit, for a detector of classes with these names."""

    source: Source
    classes: tuple[str, ...]

    @property
    def known(self) -> dict[int, int]:
        """Label here -> label in the source, of the classes that are the same.

        By name; where nothing says the names and both have equally many, in their order.
        """
        names = self.source.names
        if names is None:
            return (
                {label: label for label in range(len(self.classes))} if self.source.count == len(self.classes) else {}
            )
        places = {_plain(name): label for label, name in enumerate(names)}
        pairs = ((label, places.get(_plain(name))) for label, name in enumerate(self.classes))
        return {label: place for label, place in pairs if place is not None}

    def put_into(self, network: Detector) -> None:
        """Overwrite its weights; the outputs about classes that the source does not know stay as they are."""
        tensors = _weights(self.source.tensors)
        state = {name: tensor for name, tensor in network.state_dict().items() if name in tensors}
        mine, theirs = (network.class_layers(count) for count in (len(self.classes), self.source.count))
        with torch.no_grad():
            for name, tensor in state.items():
                layer = name.rpartition(".")[0]
                if layer in mine:
                    self._copy_known(tensor, tensors[name], mine[layer], theirs[layer])
                elif tensor.shape == tensors[name].shape:
                    tensor.copy_(tensors[name])

    def _copy_known(self, own: Tensor, other: Tensor, rows: Tensor, other_rows: Tensor) -> None:
        """`rows` (classes, outputs) and `other_rows` say which outputs speak of a class; others speak of none."""
        for label, place in self.known.items():
            own[rows[label]] = other[other_rows[place]]
        own[_rest(own, rows)] = other[_rest(other, other_rows)]

    def describe(self) -> str:
        """In a line, with the classes that it has to learn anew."""
        new = [name for label, name in enumerate(self.classes) if label not in self.known]
        if not new and self.source.names is None:
            return f"of {self.source.what}, whose {self.source.count} classes are taken in the order of these"
        if not new:
            return f"of {self.source.what}, which knows all classes"
        if len(new) == len(self.classes):
            return f"of {self.source.what}, which knows none of the classes: what says them is new"
        return f"of {self.source.what}; new is what says {_listed(new)}"


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensor for name, tensor in state.items() if not name.startswith(NOT_WEIGHTS) and not name.endswith(COUNTS)
    }


def _rest(tensor: Tensor, rows: Tensor) -> Tensor:
    """The outputs that speak of no class, such as a softmax's background."""
    is_rest = torch.ones(len(tensor), dtype=torch.bool)
    is_rest[rows.flatten()] = False
    return is_rest.nonzero()[:, 0]


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
