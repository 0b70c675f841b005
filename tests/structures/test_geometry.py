"""Boxes carried from view to view, and streams joined."""

from dataclasses import replace

import pytest
import torch

from ssodkit.structures.geometry import Stream, carry, carry_boxes, carry_labels
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.records import join
from ssodkit.structures.teaching import Supervision, Targets
from ssodkit.structures.views import View

HALF = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
RIGHT = [[1.0, 0.0, 60.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
TURNED = [[0.6, -0.8, 40.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]]
PLAIN = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


def view_of(*matrices: list[list[float]], size: tuple[int, int] = (50, 100)) -> View:
    batch = len(matrices)
    return View(
        pixels=torch.full((batch, 3, *size), 9, dtype=torch.uint8),
        sizes=torch.tensor([size] * batch, dtype=torch.int64).view(-1, 2),
        homography=torch.tensor(matrices).view(-1, 3, 3),
        image_ids=torch.arange(batch),
        keys=torch.arange(batch) + 7,
    )


def targets_of(*boxes: tuple[float, float, float, float]) -> Targets:
    """One image with these boxes, labels 0, 1, ..."""
    targets = Targets.empty(1, length=len(boxes))
    return replace(
        targets,
        boxes=torch.tensor(boxes, dtype=torch.float32).view(1, -1, 4),
        labels=torch.arange(len(boxes))[None],
        valid=torch.ones(1, len(boxes), dtype=torch.bool),
        weight=torch.ones(1, len(boxes)),
    )


def test_carry__soft_teacher_transport():
    """Original 100 x 50; weak 120 x 60: scale 1.2 and flip; strong 80 x 40: scale 0.8 and shift by 8."""
    weak = view_of([[-1.2, 0.0, 120.0], [0.0, 1.2, 0.0], [0.0, 0.0, 1.0]], size=(60, 120))
    strong = view_of([[0.8, 0.0, 8.0], [0.0, 0.8, 0.0], [0.0, 0.0, 1.0]], size=(40, 80))
    carried = carry(targets_of((30, 12, 90, 48)), weak, strong)
    assert carried.boxes[0, 0].tolist() == pytest.approx([28, 8, 68, 32], abs=1e-4)


def test_carry__soft_teacher_rotation_is_clipped():
    cosine, sine = 3**0.5 / 2, 0.5
    x, y = 39.5 * (1 - cosine) + 19.5 * sine, 19.5 * (1 - cosine) - 39.5 * sine
    turned = view_of([[cosine, -sine, x], [sine, cosine, y], [0.0, 0.0, 1.0]], size=(40, 80))
    carried = carry(targets_of((28, 8, 68, 32)), view_of(PLAIN, size=(40, 80)), turned)
    assert carried.boxes[0, 0].tolist() == pytest.approx([23.290708, 3.790708, 69.931724, 40.0], abs=1e-4)


def test_carry__a_turned_box_becomes_the_hull_of_its_corners():
    carried = carry(targets_of((10, 0, 20, 10)), view_of(PLAIN), view_of(TURNED))
    assert carried.boxes[0, 0].tolist() == pytest.approx([38, 8, 52, 22], abs=1e-4)


def test_carry__what_is_clipped_stays_and_what_left_loses_valid_in_its_row():
    """Boxes 40 wide in an image of 100: shifted by 60, one stays whole, one half, one not at all."""
    targets = targets_of((70, 0, 99, 40), (0, 10, 40, 30), (20, 10, 60, 30))
    carried = carry(targets, view_of(PLAIN), view_of(RIGHT))
    assert carried.valid.tolist() == [[False, True, True]]
    assert carried.boxes[0].tolist() == [[0, 0, 0, 0], [60, 10, 100, 30], [80, 10, 100, 30]]
    assert carried.labels.tolist() == [[0, 1, 2]]
    assert carried.weight.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(("visible", "valid"), [(0.0, True), (0.5, True), (0.51, False), (1.0, False)])
def test_carry__less_visible_than_asked_loses_valid(visible, valid):
    carried = carry(targets_of((20, 10, 60, 30)), view_of(PLAIN), view_of(RIGHT), visible)
    assert carried.valid.tolist() == [[valid]]


def test_carry__rows_that_were_not_valid_stay_so():
    targets = targets_of((10, 10, 20, 20))
    hidden = targets.where(torch.zeros(1, 1, dtype=torch.bool))
    assert carry(hidden, view_of(PLAIN), view_of(HALF)).valid.tolist() == [[False]]


def test_carry__each_image_has_its_own_matrices():
    both = join([targets_of((10, 10, 20, 20)), targets_of((10, 10, 20, 20))])
    carried = carry(both, view_of(PLAIN, HALF), view_of(HALF, PLAIN))
    assert carried.boxes[:, 0].tolist() == [[5, 5, 10, 10], [20, 20, 40, 40]]


def test_carry__detections_keep_their_scores():
    found = Detections(
        boxes=torch.tensor([[[10.0, 10.0, 20.0, 20.0], [90.0, 10.0, 99.0, 20.0]]]),
        labels=torch.tensor([[3, 4]]),
        valid=torch.ones(1, 2, dtype=torch.bool),
        scores={"confidence": torch.tensor([[0.9, 0.8]])},
    )
    carried = carry(found, view_of(PLAIN), view_of(RIGHT))
    assert carried.valid.tolist() == [[True, False]]
    assert carried.scores["confidence"] is found.confidence


def test_carry__sets_that_are_one_object_stay_one():
    first, second = targets_of((10, 10, 20, 20)), targets_of((0, 0, 8, 8))
    supervision = Supervision(first, first, second, Progress(3, 10))
    carried = carry(supervision, view_of(PLAIN), view_of(HALF))
    assert carried.objectness is carried.classes
    assert carried.boxes is not carried.classes
    assert carried.boxes.boxes[0, 0].tolist() == [0, 0, 4, 4]
    assert carried.progress == Progress(3, 10)


def test_carry__boxes_are_fp32_also_under_autocast():
    targets = targets_of((10.25, 10.125, 77.0625, 41.3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        carried = carry(targets, view_of(HALF), view_of(TURNED))
        there_and_back = carry(carry(targets, view_of(PLAIN), view_of(HALF)), view_of(HALF), view_of(PLAIN))
    assert carried.boxes.dtype == torch.float32
    assert there_and_back.boxes[0, 0].tolist() == pytest.approx(targets.boxes[0, 0].tolist(), abs=1e-4)


def test_carry__no_box_and_no_image_are_fine():
    assert carry(Targets.empty(1), view_of(PLAIN), view_of(HALF)).boxes.shape == (1, 0, 4)
    assert carry(Targets.empty(0, length=3), view_of(), view_of()).boxes.shape == (0, 3, 4)


def test_carry_labels__takes_what_is_true_of_the_original_images_into_a_view():
    truth = targets_of((10, 10, 20, 20), (30, 10, 80, 20), (90, 10, 99, 20))
    carried = carry_labels(truth, view_of(RIGHT))
    assert carried.boxes.tolist() == [[[70, 10, 80, 20], [90, 10, 100, 20], [0, 0, 0, 0]]]
    assert carried.valid.tolist() == [[True, True, False]]
    assert carried.weight is truth.weight
    assert carry_labels(truth, view_of(RIGHT), visible=0.5).valid.tolist() == [[True, False, False]]
    assert carry_labels(Targets.empty(1), view_of(RIGHT)).boxes.shape == (1, 0, 4)


def test_carry_boxes__is_clipped_to_the_goal():
    boxes = carry_boxes(torch.tensor([[[20.0, 10.0, 60.0, 30.0]]]), view_of(PLAIN), view_of(RIGHT))
    assert boxes.tolist() == [[[80, 10, 100, 30]]]


def test_joined__all_labeled_views_are_rows_of_one_batch():
    small, large = view_of(PLAIN, HALF, size=(32, 64)), view_of(PLAIN, HALF, size=(64, 96))
    few, many = Targets.empty(2, length=1), Targets.empty(2, length=3)
    few.valid[:] = True
    view, targets = Stream({"weak": small, "strong": large}, {"weak": few, "strong": many}).joined()
    assert view.pixels.shape == (4, 3, 64, 96)
    assert view.sizes.tolist() == [[32, 64], [32, 64], [64, 96], [64, 96]]
    assert view.image_ids.tolist() == [0, 1, 0, 1]
    assert not view.pixels[:2, :, 32:].any()
    assert targets.valid.tolist() == [[True, False, False]] * 2 + [[False] * 3] * 2


def test_joined__one_view_is_itself():
    view, targets = view_of(PLAIN), Targets.empty(1)
    assert Stream({"only": view}, {"only": targets}).joined() == (view, targets)


def test_stream__cuts_all_views_and_targets_alike():
    stream = Stream({"weak": view_of(PLAIN, HALF), "strong": view_of(HALF, RIGHT)}, {"weak": Targets.empty(2)})
    second = stream[1:]
    assert second.views["weak"].homography.tolist() == [HALF]
    assert second.views["strong"].homography.tolist() == [RIGHT]
    assert second.targets["weak"].valid.shape == (1, 0)


MIRROR = [[-1.0, 0.0, 100.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
UPSIDE_DOWN = [[1.0, 0.0, 0.0], [0.0, -1.0, 50.0], [0.0, 0.0, 1.0]]
QUARTER_TURN = [[0.0, -1.0, 50.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]  # what was left is above


@pytest.mark.parametrize(
    ("matrix", "sides"),
    [
        (PLAIN, [0.0, 1.0, 2.0, 3.0]),
        (HALF, [0.0, 1.0, 2.0, 3.0]),
        (MIRROR, [2.0, 1.0, 0.0, 3.0]),
        (UPSIDE_DOWN, [0.0, 3.0, 2.0, 1.0]),
        (QUARTER_TURN, [3.0, 0.0, 1.0, 2.0]),
    ],
)
def test_carry__what_is_said_of_sides_goes_with_them(matrix, sides):
    said = {"uncertainty": torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]), "quality": torch.tensor([[7.0]])}
    carried = carry(replace(targets_of((10, 10, 30, 20)), extra=said), view_of(PLAIN), view_of(matrix))
    assert carried.extra["uncertainty"].tolist() == [[sides]]
    assert carried.extra["quality"].tolist() == [[7.0]]


def test_carry__sides_of_no_boxes_are_none():
    none = replace(Targets.empty(1), extra={"uncertainty": torch.zeros(1, 0, 4)})
    assert carry(none, view_of(PLAIN), view_of(MIRROR)).extra["uncertainty"].shape == (1, 0, 4)
