"""RoIAlign on the CPU, against torchvision's."""

import pytest
import torch
from torchvision.ops import roi_align as of_torchvision

from ssodkit.ops.roi_align import roi_align


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 5, 13, 17, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.fixture
def regions():
    """Of all sizes, also far beyond the map, on its edges, and without area; not in the order of the images."""
    random = torch.rand(200, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    corner = random[:, 1:3] * 180 - 40
    image = (random[:, :1] * 3).floor()
    drawn = torch.cat([image, corner, corner + random[:, 3:] ** 3 * 120], dim=1)
    edges = torch.tensor([[2.0, 0, 0, 136, 104], [0, -8, -8, 0, 0], [1, 136, 104, 144, 112], [0, 20, 20, 20, 20]])
    return torch.cat([drawn, edges.double()])


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_roi_align__answers_and_gradients_are_torchvisions(features, regions, samples, aligned):
    seen = roi_align(features, regions, 5, 8, samples, aligned)
    wanted = of_torchvision(features, regions, 5, spatial_scale=1 / 8, sampling_ratio=samples, aligned=aligned)
    assert (seen - wanted).abs().max() < 1e-12
    weights = torch.randn(seen.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (mine,), (theirs,) = (torch.autograd.grad(answer, features, weights) for answer in (seen, wanted))
    assert (mine - theirs).abs().max() < 1e-12


def test_roi_align__as_many_samples_as_a_cell_is_long_are_torchvisions_own(features, regions):
    wanted = of_torchvision(features, regions, 7, spatial_scale=1 / 8, sampling_ratio=0, aligned=True)
    assert torch.equal(roi_align(features, regions, 7, 8, 0, True), wanted)


@pytest.mark.parametrize("samples", [0, 2])
def test_roi_align__no_region_has_no_features_and_a_gradient_of_zero(features, samples):
    seen = roi_align(features, torch.zeros(0, 5, dtype=torch.float64), 5, 8, samples, True)
    assert seen.shape == (0, 5, 5, 5)
    (gradient,) = torch.autograd.grad(seen.sum(), features)
    assert not gradient.any()


def test_roi_align__a_map_of_one_cell(regions):
    features = torch.full((3, 2, 1, 1), 4.0, dtype=torch.float64)
    wanted = of_torchvision(features, regions, 3, spatial_scale=1 / 8, sampling_ratio=2, aligned=True)
    assert (roi_align(features, regions, 3, 8, 2, True) - wanted).abs().max() < 1e-12
