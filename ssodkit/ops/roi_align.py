"""RoIAlign: features of regions, read between the cells of a map.

Source: He et al., Mask R-CNN, arXiv:1703.06870, section 3. torchvision defines the answer and gives it on a GPU; on a
CPU, where its gradient takes longer than all convolutions of a small network, a region's cell is a weighted sum of
feature cells here, which gives the same numbers in a fifth of the time.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag


def roi_align(
    features: Float[Tensor, "batch channels height width"],
    regions: Float[Tensor, "regions 5"],
    cells: int,
    stride: int,
    samples: int,
    aligned: bool,
) -> Float[Tensor, "regions channels cells cells"]:
    """The mean of `samples` x `samples` points in each of a region's `cells` x `cells` cells.

    A region is the number of its image, then xyxy in pixels. 0 `samples`: as many as a cell is feature cells long.
    `aligned`: the middle of feature cell 0 lies at half a stride, else at 0, and regions have at least one cell.
    """
    if samples and features.device.type == "cpu":
        return _weighted_sums(features, regions, cells, stride, samples, aligned)
    from torchvision.ops import roi_align as of_torchvision

    answer: Tensor = of_torchvision(
        features, regions, cells, spatial_scale=1.0 / stride, sampling_ratio=samples, aligned=aligned
    )
    return answer


def _weighted_sums(
    features: Tensor, regions: Tensor, cells: int, stride: int, samples: int, aligned: bool
) -> Float[Tensor, "regions channels cells cells"]:
    channels, height, width = features.shape[1:]
    scaled = regions[:, 1:] / stride - (0.5 if aligned else 0.0)
    x, across = _taps(scaled[:, 0], scaled[:, 2], cells, samples, width, aligned)
    y, along = _taps(scaled[:, 1], scaled[:, 3], cells, samples, height, aligned)
    rows = regions[:, :1, None].long() * height + y  # regions cells taps
    places = rows[:, :, None, :, None] * width + x[:, None, :, None, :]
    weights = along[:, :, None, :, None] * across[:, None, :, None, :]
    table = features.permute(0, 2, 3, 1).reshape(-1, channels)
    bags = embedding_bag(
        places.flatten(3).flatten(0, 2), table, per_sample_weights=weights.flatten(3).flatten(0, 2), mode="sum"
    )
    return bags.view(len(regions), cells, cells, channels).permute(0, 3, 1, 2)


def _taps(
    start: Float[Tensor, "regions"], end: Float[Tensor, "regions"], cells: int, samples: int, length: int, aligned: bool
) -> tuple[Int64[Tensor, "regions cells taps"], Float[Tensor, "regions cells taps"]]:
    """Along one axis: the feature cells that each cell of a region reads, and how much each of them counts."""
    side = end - start if aligned else (end - start).clamp(min=1.0)
    cell = (side / cells)[:, None, None]
    first, second = (torch.arange(count, dtype=start.dtype, device=start.device) for count in (cells, samples))
    # In torchvision's order: a point on the border is in or out by its last bit.
    points = start[:, None, None] + first[:, None] * cell + (second + 0.5) * cell / samples  # regions cells samples
    counts = (points >= -1.0) & (points <= length)  # what lies further out is 0
    points = points.clamp(0.0, length - 1.0)
    low = points.floor()
    share = points - low
    places = torch.cat([low, (low + 1.0).clamp(max=length - 1.0)], dim=2).long()
    weights = torch.cat([(1.0 - share) * counts, share * counts], dim=2) / samples
    return places, weights
