import torch

from ssodkit.structures.geometry import carry_boxes
from ssodkit.structures.views import View, mirrored


def test_view__without_pixels_keeps_its_frame_and_no_pixel_alive():
    view = View(
        pixels=torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        sizes=torch.tensor([[60, 64], [64, 50]]),
        homography=torch.eye(3).repeat(2, 1, 1),
        image_ids=torch.tensor([5, 6]),
        keys=torch.tensor([1, 2]),
    )
    frame = view.without_pixels()
    assert frame.pixels.shape == (2, 3, 0, 0)
    assert frame.pixels.untyped_storage().nbytes() == 0
    assert frame.sizes is view.sizes


def test_mirrored__boxes_find_the_pixels_they_held():
    """The second image is narrower than the canvas: what was padding on its right lies on its left."""
    pixels = torch.randint(1, 256, (2, 3, 100, 600), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    pixels[1, :, :, 500:] = 0
    view = View(
        pixels=pixels,
        sizes=torch.tensor([[100, 600], [100, 500]]),
        homography=torch.tensor([[[2.0, 0.0, 10.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]]).repeat(2, 1, 1),
        image_ids=torch.tensor([5, 6]),
        keys=torch.tensor([1, 2]),
    )
    other = mirrored(view)
    box = torch.tensor([[[100.0, 50.0, 299.0, 80.0]]]).repeat(2, 1, 1)
    carried = carry_boxes(box, view, other)
    assert carried.tolist() == [[[301.0, 50.0, 500.0, 80.0]]] * 2
    torch.testing.assert_close(carry_boxes(carried, other, view), box)
    there = other.pixels[..., 50:80, 301:500].flip(-1)
    assert torch.equal(there, pixels[..., 50:80, 100:299])
    assert other.margin is not None
    assert other.margin.tolist() == [0, 100]
    assert not other.pixels[1, :, :, :100].any()
    assert other.sizes.tolist() == [[100, 600]] * 2
    assert not set(other.keys.tolist()) & set(view.keys.tolist())
    assert torch.equal(view.pixels, pixels)
