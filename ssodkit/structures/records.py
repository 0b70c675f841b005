"""What all records share: cutting along the batch, moving and detaching, with shared parts kept shared."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

T = TypeVar("T")
R = TypeVar("R", bound="Record")


class Record:
    """Base of the frozen dataclasses of batched tensors; row i of every tensor in it is the same image."""

    def __getitem__(self: R, rows: slice) -> R:
        """These rows of the batch; a slice is a view, nothing is copied.

        Raises TypeError for anything but a slice: an index list would copy the logits.
        """
        if not isinstance(rows, slice):
            raise TypeError(f"a {type(self).__name__} is cut by a slice, not by {rows!r}")
        return map_tensors(self, lambda tensor: tensor[rows] if tensor.dim() else tensor)

    def to(self: R, device: torch.device | str) -> R:
        """The same record on a device; copies do not wait where the memory is pinned."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def detach(self: R) -> R:
        """The same record, cut from the graph."""
        return map_tensors(self, Tensor.detach)


def map_tensors(record: T, change: Callable[[Tensor], Tensor]) -> T:
    """A copy of `record` with every tensor in it changed.

    Tensors and records that are one object in `record` are one object in the answer.
    """
    return _map(record, change, {})


def join(records: list[R]) -> R:
    """One record with the rows of all, in order; shorter rows and smaller canvases are padded with zeros.

    Zero is "not valid" in every record, and black in a view. What is one object in every record is one
    object in the answer. A bool is a claim about every row: it holds of all where it holds of each. Raises ValueError
    where something else than a tensor is not the same in all: a part that some lack, or names and numbers that differ.
    """
    if len(records) == 1:
        return records[0]
    return _join(records, {})


def _map(value: Any, change: Callable[[Tensor], Tensor], done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, Tensor):
        answer: Any = change(value)
    elif is_dataclass(value) and isinstance(value, Record):
        answer = replace(value, **{f.name: _map(getattr(value, f.name), change, done) for f in fields(value) if f.init})
    elif isinstance(value, Mapping):
        answer = {name: _map(part, change, done) for name, part in value.items()}
    elif isinstance(value, tuple | list):
        answer = type(value)(_map(part, change, done) for part in value)
    else:
        return value
    done[id(value)] = answer
    return answer


def _join(values: list[Any], done: dict[tuple[int, ...], Any]) -> Any:
    key = tuple(id(value) for value in values)
    if key in done:
        return done[key]
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        raise ValueError(
            f"cannot join {' and '.join(type(value).__name__ for value in values)} in one place of a record"
        )
    if isinstance(first, Tensor):
        answer: Any = torch.cat(_pad_alike(values)) if first.dim() else first
    elif is_dataclass(first) and isinstance(first, Record):
        parts = {f.name: _join([getattr(value, f.name) for value in values], done) for f in fields(first) if f.init}
        answer = replace(first, **parts)
    elif isinstance(first, Mapping):
        if any(set(value) != set(first) for value in values):
            raise ValueError(
                f"cannot join records whose parts are {' and '.join(', '.join(value) for value in values)}"
            )
        answer = {name: _join([value[name] for value in values], done) for name in first}
    elif isinstance(first, tuple | list):
        answer = type(first)(_join(list(parts), done) for parts in zip(*values, strict=True))
    elif isinstance(first, bool):
        return all(values)
    elif any(value != first for value in values):
        raise ValueError(f"cannot join records in which {' and '.join(map(repr, values))} differ")
    else:
        return first
    done[key] = answer
    return answer


def _pad_alike(tensors: list[Tensor]) -> list[Tensor]:
    goal = [max(lengths) for lengths in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    padded = []
    for tensor in tensors:
        missing = [wanted - has for wanted, has in zip(goal, tensor.shape[1:], strict=True)]
        padded.append(pad(tensor, [amount for m in reversed(missing) for amount in (0, m)]) if any(missing) else tensor)
    return padded
