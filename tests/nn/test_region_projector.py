import torch
from torchvision.ops import roi_align

from ssodkit.nn.region_projector import RegionProjector, read_regions
from ssodkit.nn.roi_head import region_levels


def test_region_projector__is_as_large_as_published():
    assert sum(weight.numel() for weight in RegionProjector(256, 7, 1024).parameters()) == 14_291_200


def test_region_projector__a_row_that_does_not_count_changes_no_other():
    torch.manual_seed(0)
    projector, pooled = RegionProjector(4, 3, 8), torch.randn(3, 4, 3, 3)
    alone = projector(pooled[:2], torch.ones(2, dtype=torch.bool))
    beside = projector(pooled, torch.tensor([True, True, False]))
    torch.testing.assert_close(beside[:2], alone)
    assert (alone >= 0.0).all()


def test_region_levels__of_the_example():
    sides = torch.tensor([[56, 56], [100, 100], [112, 112], [224, 224], [448, 448], [40, 900]])
    boxes = torch.cat([torch.zeros(6, 2), sides.float()], dim=-1)
    assert region_levels(boxes, 56.0, 4).tolist() == [0, 0, 1, 2, 3, 1]


def test_read_regions__reads_each_from_the_level_of_its_size(host_questions):
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 64 // stride, 64 // stride) for stride in (4, 8)]
    boxes = torch.tensor([[[4.0, 4, 20, 20], [0, 0, 60, 50], [0, 0, 0, 0]], [[8, 8, 50, 60], [3, 5, 17, 30], [0] * 4]])
    with host_questions() as asked:
        read = read_regions(maps, (4, 8), boxes, cells=3, finest_side=20.0)
    assert not asked
    for row, (image, place, level) in enumerate([(0, 0, 0), (0, 1, 1), (0, 2, 0), (1, 0, 1), (1, 1, 0), (1, 2, 0)]):
        region = torch.cat([torch.tensor([float(image)]), boxes[image, place]])[None]
        expected = roi_align(maps[level], region, 3, spatial_scale=1 / (4, 8)[level], aligned=True)
        torch.testing.assert_close(read[row], expected[0])
    assert read_regions(maps, (4, 8), boxes[:, :0], cells=3, finest_side=20.0).shape == (0, 3, 3, 3)
