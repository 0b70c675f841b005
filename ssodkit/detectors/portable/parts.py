"""What portable detectors share: anchors, choices of a fixed number, suppression in groups."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import pad

from ssodkit.detectors.anchors import AnchorConfig, half_sides
from ssodkit.structures.predictions import Candidates

Suppress = Callable[[Tensor, Tensor, float], Tensor]
"""Boxes (groups, n, 4), scores (groups, n) and an IoU -> which boxes survive in their group (groups, n); boxes that
score -inf are none. See `surviving` for rules that may suppress nothing."""
NO_SCORE = -1e30
"""Below every score but -inf."""


class Answer(NamedTuple):
    """Detections in pixels of the view, best first; a fixed number, the missing ones with a score of -inf."""

    boxes: Tensor
    """(batch, n, 4), xyxy."""
    scores: Tensor
    """(batch, n)."""
    labels: Tensor
    """(batch, n)."""


def normalized(pixels: Tensor, size: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Gray levels (batch, 3, height, width) as a backbone wants them; 0 beyond the images' common `size`."""
    images = (pixels / 255.0 - mean[:, None, None]) / std[:, None, None]
    row, column = counted(pixels[0, 0, :, 0]) < size[0], counted(pixels[0, 0, 0]) < size[1]
    return images * (row[:, None] & column)


def lay_anchors(
    config: AnchorConfig, maps: Sequence[Tensor], strides: Sequence[int], size: Tensor
) -> tuple[Candidates, list[Any]]:
    """`make_anchors` for images of one `size` (height, width), and how many each level has."""
    boxes, corners, steps_apart, lengths = [], [], [], []
    canvas = [_length(maps[0], dim) * strides[0] for dim in (2, 3)]
    for level, stride, shapes in zip(maps, strides, config.shapes, strict=True):
        steps = [
            torch.div(side, _length(level, dim), rounding_mode="floor") if config.spacing == "canvas" else stride
            for side, dim in zip(canvas, (2, 3), strict=True)
        ]
        y, x = counted(level[0, 0, :, 0]) * steps[0], counted(level[0, 0, 0]) * steps[1]
        half = half_sides(shapes, config.rounded, torch.float32, level.device)
        middle = _points(y + config.center * steps[0], x + config.center * steps[1])[:, None]
        boxes.append(torch.cat([middle - half, middle + half], dim=-1).reshape(-1, 4))
        corners.append(_points(y, x)[:, None].expand(-1, len(half), -1).reshape(-1, 2))
        steps_apart.append(torch.full_like(corners[-1][:, 0], float(stride)))
        lengths.append(level.shape[2] * level.shape[3] * len(half))
    corner = torch.cat(corners)
    valid = (corner < size.flip(0)).all(dim=-1) if config.inside == "image" else corner[:, 0] >= 0.0
    batch = maps[0].shape[0]  # not len(): a tracer follows a shape, and takes a length for a constant
    apart = torch.cat(steps_apart).expand(batch, -1)
    return Candidates(torch.cat(boxes).expand(batch, -1, 4), valid.expand(batch, -1), stride=apart), lengths


def clipped(boxes: Tensor, size: Tensor) -> Tensor:
    """Boxes (..., 4) within images of one `size` (height, width)."""
    bound = torch.cat([size.flip(0), size.flip(0)]).to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0.0), bound)


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` best scores of each row and their places, which lie behind the row's end where it has fewer."""
    return pad(scores, (0, count), value=-torch.inf).topk(count, dim=1)


def rows_at(values: Tensor, places: Tensor) -> Tensor:
    """The rows of `values` (batch, rows, n) at `places` (batch, count) that `best` gave; zeros behind the end."""
    longer = pad(values, (0, 0, 0, places.shape[1]))
    return longer.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def counted(like: Tensor) -> Tensor:
    """0, 1, 2, ... as long as `like` (n,): a tracer keeps no `arange` of a length that it does not know."""
    return torch.ones_like(like).cumsum(0) - 1.0


def surviving(suppress: Suppress, boxes: Tensor, scores: Tensor, iou: float | None) -> Tensor:
    """What `suppress` leaves, or all that has a score where nothing is suppressed."""
    return scores > NO_SCORE if iou is None else suppress(boxes, scores, iou)


def suppress_by_torch(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """As `ops.nms.suppress` does it: groups moved apart in float64, for torchvision's kernel."""
    from torchvision.ops import nms

    group = counted(scores[:, 0])[:, None].expand_as(scores).flatten()
    rows = (scores.flatten() > NO_SCORE).nonzero()[:, 0]
    wide = boxes.reshape(-1, 4)[rows].double()
    width = pad(wide.flatten(), (0, 1)).amax() - pad(wide.flatten(), (0, 1)).amin() + 1.0
    kept = nms(wide + (group[rows].double() * width)[:, None], scores.flatten()[rows].double(), iou)
    return torch.zeros_like(scores.flatten()).index_fill(0, rows[kept], 1.0).view_as(scores) > 0.0


class _OnnxSuppression(Function):
    """ONNX's NonMaxSuppression, whose images are the groups; while it is traced, torch answers."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
        return suppress_by_torch(boxes, scores, iou)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou: float) -> Any:
        def constant(value: Any, dtype: torch.dtype) -> Any:
            return g.op("Constant", value_t=torch.tensor(value, dtype=dtype))

        found = g.op(
            "NonMaxSuppression",
            boxes,
            g.op("Unsqueeze", scores, constant([1], torch.int64)),
            constant([2**31 - 1], torch.int64),
            constant([iou], torch.float32),
            constant([NO_SCORE], torch.float32),
        )  # rows of group, class (always 0), box
        place = g.op("Gather", found, constant([0, 2], torch.int64), axis_i=1)
        count = g.op("Gather", g.op("Shape", found), constant([0], torch.int64), axis_i=0)
        ones = g.op("ConstantOfShape", count, value_t=torch.tensor([1], dtype=torch.int64))
        nothing = g.op("ConstantOfShape", g.op("Shape", scores), value_t=torch.tensor([0], dtype=torch.int64))
        return g.op("Cast", g.op("ScatterND", nothing, place, ones), to_i=9)  # 9 is ONNX's number of bool


def suppress_by_onnx(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """What the tracer for ONNX writes as its operation NonMaxSuppression."""
    survives: Tensor = _OnnxSuppression.apply(boxes, scores, iou)
    return survives


def _length(level: Tensor, dim: int) -> Tensor:
    """Cells along one side, as a float tensor that a tracer follows."""
    return torch.ones_like(level[0, 0, :, 0] if dim == 2 else level[0, 0, 0]).sum()


def _points(y: Tensor, x: Tensor) -> Tensor:
    """All pairs (x, y), row by row."""
    shape = y[:, None] + x
    return torch.stack([x + torch.zeros_like(shape), y[:, None] + torch.zeros_like(shape)], dim=-1).reshape(-1, 2)
