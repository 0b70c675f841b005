import numpy as np
import torch

from ssodkit.data.raw import stack_images
from ssodkit.structures.teaching import Targets


def test_stack_images__pads_right_and_below_with_black():
    images = [np.full((2, 3, 3), 9, dtype=np.uint8), np.full((4, 1, 3), 5, dtype=np.uint8)]
    raw = stack_images(images, [7, 8], [1, 2], Targets.empty(2))
    assert raw.pixels.shape == (2, 3, 4, 3)
    assert raw.sizes.tolist() == [[2, 3], [4, 1]]
    assert raw.pixels[0, 0].tolist() == [[9, 9, 9], [9, 9, 9], [0, 0, 0], [0, 0, 0]]
    assert raw.pixels[1, 2].tolist() == [[5, 0, 0]] * 4
    assert raw.image_ids.tolist() == [7, 8]


def test_stack_images__channels_stay_red_green_blue():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    raw = stack_images([image], [1], [1], Targets.empty(1))
    assert raw.pixels[0].permute(1, 2, 0).tolist() == image.tolist()


def test_stack_images__nothing_is_a_batch_of_nothing():
    raw = stack_images([], [], [], Targets.empty(0))
    assert raw.pixels.shape == (0, 3, 0, 0)
    assert raw.sizes.shape == (0, 2)


def test_raw_batch__what_views_are_drawn_from_stays_on_the_cpu():
    raw = stack_images([np.zeros((2, 2, 3), dtype=np.uint8)], [1], [1], Targets.empty(1, length=1)).to("meta")
    assert raw.pixels.device == raw.targets.boxes.device == torch.device("meta")
    assert raw.sizes.device == raw.keys.device == raw.image_ids.device == torch.device("cpu")
