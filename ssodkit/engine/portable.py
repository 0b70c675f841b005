"""The whole of a detector as one module: pictures of any size in, boxes in their pixels out, all in tensors.

The recipe's test view is in it: its resize, in the arithmetic of `ops.resample`, then the padding of the canvas.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ssodkit.data.augment.resize import ResizeConfig
from ssodkit.data.views import ViewsConfig
from ssodkit.detectors.base import Detector
from ssodkit.detectors.portable.parts import Suppress, clipped, counted, rows_at
from ssodkit.errors import TrainingError
from ssodkit.ops.resample import FRACTIONS, REDUCES


class Portable(nn.Module):
    """Pictures of one size -> boxes, scores, labels, counts.

    Boxes (batch, n, 4) are left, top, right, bottom in pixels of the pictures; scores (batch, n) fall, labels (batch,
    n) are places in the class table. Of each picture the first `counts` (batch) rows are detections, the others zero.
    """

    def __init__(self, detector: Detector, views: ViewsConfig, suppress: Suppress, score: float) -> None:
        """Raises TrainingError for a detector or a test view that cannot be written into a file."""
        super().__init__()
        form = detector.portable(suppress, score)
        if form is None:
            kind = type(detector).__name__
            raise TrainingError(
                f"{kind} cannot be written as ONNX or TorchScript, for which its class would override "
                "`Detector.portable`; `--format safetensors` holds it for `ssodkit.load`, predict and eval."
            )
        self.form: nn.Module = form
        self.short, self.long = _sides(views)
        self.pad_to = views.pad_to

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`images` are (batch, 3, height, width), RGB, uint8."""
        given = torch._shape_as_tensor(images)[2:].to(images.device)
        size = self._size(given)
        answer = self.form(self._view(images.float(), given, size), size)
        scale = (given.double() / size.double()).float().flip(0)
        boxes = clipped(answer.boxes * torch.cat([scale, scale]), given)
        has_area = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
        scores, places = answer.scores.masked_fill(~has_area, -torch.inf).sort(dim=1, descending=True)
        valid = scores > -torch.inf
        return (
            rows_at(boxes, places) * valid[..., None],
            scores.masked_fill(~valid, 0.0),
            rows_at(answer.labels[..., None], places)[..., 0] * valid,
            valid.sum(dim=1),
        )

    def _size(self, given: Tensor) -> Tensor:
        """Height and width of the view, as `data.augment.resize` has them."""
        if self.short is None:
            return given
        # Not 0-d: the tracer for ONNX would divide such numbers in fp32, and pixels would be rounded otherwise.
        shorter, longer = given.amin(dim=0, keepdim=True).double(), given.amax(dim=0, keepdim=True).double()
        scale = torch.full_like(shorter, self.short) / shorter
        if self.long is not None:
            scale = torch.minimum(scale, torch.full_like(longer, self.long) / longer)
        return (given.double() * scale + 0.5).floor().clamp(min=1.0).to(torch.int64)

    def _view(self, images: Tensor, given: Tensor, size: Tensor) -> Tensor:
        """Whole gray levels on a canvas of multiples of `pad_to`: along y, then along x, as `ops.resample` has them."""
        canvas = torch.div(size + (self.pad_to - 1), self.pad_to, rounding_mode="floor") * self.pad_to
        along = _weights(images[0, 0, :, 0], given[:1], size[:1], canvas[0])
        across = _weights(images[0, 0, 0], given[1:], size[1:], canvas[1])
        return torch.floor(along @ images @ across.T + 0.5)


def _sides(views: ViewsConfig) -> tuple[int | None, int | None]:
    """The lengths to which the test view brings the short side, and the long side at most; None: it leaves them."""
    transforms = views.sized(views.test).transforms
    if not transforms:
        return None, None
    if len(transforms) == 1 and isinstance(transforms[0], ResizeConfig):
        lengths = set(transforms[0].short or transforms[0].short_choices or ())
        if len(lengths) == 1:
            return lengths.pop(), transforms[0].long
    names = ", ".join(transform.type for transform in transforms)
    raise TrainingError(
        f"the test view is made of {names}, and a file can hold one `resize` to one length or nothing. Give the run's "
        "recipe such a test view, or use `ssodkit.load`."
    )


def _weights(like: Tensor, length: Tensor, goal: Tensor, canvas: Any) -> Tensor:
    """How much each of `length` (1,) lines counts in each of `canvas` lines; the first `goal` (1,) show something."""
    source, place = counted(like).double(), torch.arange(canvas, device=like.device).double()[:, None] + 0.5
    scale = length.double() / goal.double()
    triangle = (1.0 - (source + 0.5 - place * scale).abs() / scale).clamp(min=0.0)
    reduced = (triangle / triangle.sum(dim=1, keepdim=True).clamp(min=1e-9)).float()
    point = torch.minimum(place.float() * scale.float() - 0.5, (length - 1).float()).clamp(min=0.0)
    point = torch.round(point * FRACTIONS) / FRACTIONS
    enlarged = (1.0 - (source.float() - point).abs()).clamp(min=0.0)
    return torch.where(scale > REDUCES, reduced, enlarged) * (place < goal)
