import torch

from ssodkit.structures.views import View


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
