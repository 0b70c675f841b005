import torch
from lesson import CODER, answers_of, assigned, lesson_of, normalize

from ssodkit.detectors.criteria.giou import GiouConfig
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.teaching import BACKGROUND


def predictions(candidates: torch.Tensor, codes: torch.Tensor) -> Predictions:
    return answers_of(candidates.new_zeros(*candidates.shape[:2], 2), boxes=candidates, codes=codes)


def losses_of(answers: Predictions, goals: torch.Tensor) -> torch.Tensor:
    labels = torch.zeros(goals.shape[:2], dtype=torch.int64)
    return GiouConfig()(answers, lesson_of(labels, 2, goals), torch.ones(goals.shape[:2]))


def answering(boxes: torch.Tensor) -> Predictions:
    """Predictions whose decoded boxes are `boxes`."""
    anchors = torch.tensor([0.0, 0.0, 32.0, 32.0]).to(boxes).expand(boxes.shape)
    return predictions(anchors, CODER.encode(anchors, boxes)[:, :, None])


def test_giou__weighted_has_the_published_numbers():
    boxes = torch.tensor([[[10.0, 10.0, 50.0, 40.0], [0.0, 0.0, 10.0, 10.0]]]).double()
    goals = torch.tensor([[[20.0, 15.0, 60.0, 45.0], [20.0, 0.0, 30.0, 10.0]]]).double()
    losses = 2.0 * losses_of(answering(boxes), goals)
    assert [round(loss, 6) for loss in losses[0].tolist()] == [1.205195, 2.666667]


def test_giou__weighted_by_iou_is_consistent_teachers_box_loss():
    boxes = [[6, 5, 34, 33], [9, 8, 37, 36], [10, 9, 36, 37], [14, 10, 42, 40], [22, 20, 58, 52], [26, 22, 60, 56]]
    first, second = [8.0, 8.0, 36.0, 36.0], [24.0, 20.0, 60.0, 56.0]
    goals = torch.tensor([[first, first, first, first, second, second]]).double()
    ious = torch.tensor([[0.708061, 0.931034, 0.866667, 0.0, 0.8, 0.891975]]).double()
    losses = losses_of(answering(torch.tensor([boxes]).double()), goals)
    rounded = [round(1.0 - loss, 6) for loss in losses[0].tolist()]
    assert rounded[:3] + rounded[4:] == [0.695158, 0.931034, 0.864204, 0.794152, 0.891975]
    index = torch.tensor([[0, 0, 0, BACKGROUND, 1, 1]])
    one = assigned(index, ious)
    total, denominator = normalize("quality", losses, ious, one)[""]
    assert abs(2.0 * float(total) - 1.317560) < 2e-6  # the sheet multiplies rounded numbers
    assert round(2.0 * float(total / denominator), 6) == 0.313874


def test_giou__has_a_gradient_in_the_codes():
    anchors = torch.tensor([[[0.0, 0.0, 10.0, 10.0]]])
    codes = torch.zeros(1, 1, 1, 4, requires_grad=True)
    goal = torch.tensor([[[2.0, 0.0, 14.0, 10.0]]])
    losses_of(predictions(anchors, codes), goal).sum().backward()
    assert codes.grad is not None
    shift_x, shift_y, width, height = codes.grad[0, 0, 0].tolist()
    assert shift_x < 0.0  # the loss falls as the box moves right and widens
    assert shift_y == 0.0
    assert width < 0.0
    assert height != 0.0


def test_giou__of_nothing_is_empty():
    nothing = torch.zeros(2, 0, 4)
    assert losses_of(predictions(nothing, nothing[:, :, None]), nothing).shape == (2, 0)
