import pytest
import torch

from ssodkit.ops.coding import BoxCoder
from ssodkit.reliability.background_score import BackgroundScoreConfig, background_probability, indicate
from ssodkit.structures.predictions import Candidates, Predictions

STUDENT, TEACHER, IOU = (
    torch.tensor([[0.8, 0.3, 0.6]]),
    torch.tensor([[0.9, 0.7, 0.55]]),
    torch.tensor([[0.1, 0.45, 0.0]]),
)
RELIABILITY = {
    "bg_t": [0.9, 0.7, 0.55],
    "bg_s": [0.8, 0.3, 0.6],
    "pred_diff": [0.9, 0.6, 0.95],
    "iou": [0.1, 0.45, 0.0],
    "reverse_iou": [0.9, 0.55, 1.0],
    "none": [1.0, 1.0, 1.0],
}
WEIGHTS = {
    "bg_t": [0.418605, 0.325581, 0.255814],
    "bg_s": [0.470588, 0.176471, 0.352941],
    "pred_diff": [0.367347, 0.244898, 0.387755],
    "iou": [0.181818, 0.818182, 0.0],
    "reverse_iou": [0.367347, 0.224490, 0.408163],
    "none": [1 / 3, 1 / 3, 1 / 3],
}


def indicated(indicator, iou=IOU):
    return indicate(indicator, teacher=lambda: TEACHER, student=lambda: STUDENT, iou=iou)


def refuse():
    raise AssertionError("this indicator asks nobody")


@pytest.mark.parametrize("indicator", RELIABILITY)
def test_indicate__reliability(indicator):
    torch.testing.assert_close(indicated(indicator), torch.tensor([RELIABILITY[indicator]]))


@pytest.mark.parametrize("indicator", WEIGHTS)
def test_indicate__normalized_weights(indicator):
    reliability = indicated(indicator)
    assert (reliability / reliability.sum())[0].tolist() == pytest.approx(WEIGHTS[indicator], abs=5e-7)


def test_indicate__without_a_pseudo_box_iou_is_0_and_reverse_iou_1():
    assert indicated("iou", torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]
    assert indicated("reverse_iou", torch.zeros(1, 2)).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("indicator", ["bg_s", "iou", "reverse_iou", "none"])
def test_indicate__asks_the_teacher_only_where_it_reads_the_answer(indicator):
    indicate(indicator, teacher=refuse, student=lambda: STUDENT, iou=IOU)


@pytest.mark.parametrize("indicator", ["bg_t", "iou", "reverse_iou", "none"])
def test_indicate__asks_the_student_only_where_it_reads_the_answer(indicator):
    indicate(indicator, teacher=lambda: TEACHER, student=refuse, iou=IOU)


def predictions(logits, activation):
    count = logits.shape[1]
    candidates = Candidates(torch.zeros(1, count, 4), torch.ones(1, count, dtype=torch.bool))
    return Predictions(candidates, logits, activation, torch.zeros(1, count, 1, 4), BoxCoder())


def test_background_probability__is_a_softmaxs_last_column():
    logits = torch.tensor([[[0.0, 0.0, 2.0]]])
    expected = torch.tensor([[2.0]]).exp() / (2 + torch.tensor([[2.0]]).exp())
    torch.testing.assert_close(background_probability(predictions(logits, "softmax")), expected)


def test_background_probability__under_a_sigmoid_is_what_the_best_class_leaves():
    logits = torch.tensor([[[0.0, -2.0]]])
    assert background_probability(predictions(logits, "sigmoid")).tolist() == [[0.5]]


def test_background_score__the_default_is_the_papers():
    assert BackgroundScoreConfig().indicator == "bg_t"
    assert BackgroundScoreConfig.needs == {"exact_regions"}
