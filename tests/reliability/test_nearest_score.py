from dataclasses import replace

import pytest
import torch
from lesson import answers_of, assigned, lesson_of

from ssodkit.detectors.criteria.binary import BinaryConfig
from ssodkit.detectors.learning import assign, predict_together
from ssodkit.detectors.normalizers.draws import QuotaConfig
from ssodkit.reliability.nearest_score import NearestScoreConfig, nearest_scores
from ssodkit.structures.predictions import Candidates
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, Supervision, Targets
from ssodkit.teachers.ema import EmaTeacherConfig


def candidates(*boxes: tuple[float, ...]) -> Candidates:
    return Candidates(torch.tensor(boxes).view(1, -1, 4), torch.ones(1, len(boxes), dtype=torch.bool))


def scored(targets: Targets, *scores: float) -> Targets:
    return replace(targets, extra={"score": torch.tensor(scores).view(len(targets.boxes), -1)})


def test_rpn__the_loss_weighed_by_scores_is_the_published_one():
    said = answers_of(torch.tensor([[[1.2], [-0.7], [-2.0]]], dtype=torch.float64))
    lesson = replace(
        lesson_of(torch.tensor([[0, 1, 1]]), 1),
        assignment=assigned(torch.tensor([[0, BACKGROUND, BACKGROUND]]), torch.zeros(1, 3).double()),
    )
    losses = BinaryConfig()(said, lesson, torch.ones(1, 3).double())
    weights = torch.tensor([[0.93, 0.93, 0.81]], dtype=torch.float64)
    assert losses[0].tolist() == pytest.approx([0.263282, 0.403186, 0.126928], abs=1e-6)
    total, denominator = QuotaConfig()(losses, weights, lesson, said, 256)[""]
    assert total.item() == pytest.approx(0.722627, abs=1e-6)
    assert (total / denominator).item() == pytest.approx(0.002823, abs=1e-6)


def test_nearest_scores__are_those_of_the_boxes_overlapped_most(make_targets):
    targets = scored(make_targets([[(0, 0, 10, 10, 0), (4, 0, 14, 10, 1)]]), 0.9, 0.7)
    seen = candidates((0.0, 0.0, 9.0, 10.0), (5.0, 0.0, 14.0, 10.0), (50.0, 50.0, 60.0, 60.0))
    assert nearest_scores(seen, targets)[0].tolist() == pytest.approx([0.9, 0.7, 0.9])


def test_nearest_scores__boxes_that_do_not_teach_are_none(make_targets):
    targets = scored(make_targets([[(0, 0, 10, 10, 0), (40, 40, 50, 50, 1)]]), 0.9, 0.7)
    targets.weight[0, 0] = 0.0
    seen = candidates((0.0, 0.0, 9.0, 10.0), (90.0, 90.0, 99.0, 99.0))
    assert nearest_scores(seen, targets)[0].tolist() == pytest.approx([0.7, 0.7])
    targets.valid[:] = False
    assert nearest_scores(seen, targets).tolist() == [[0.0, 0.0]]
    assert nearest_scores(seen, scored(Targets.empty(1))).tolist() == [[0.0, 0.0]]


def test_nearest_score__weighs_the_first_stages_classes_alone(tiny_context, semi_batch, make_targets):
    context = tiny_context()
    student = context.detector.build(context)
    targets = scored(make_targets([[(8, 8, 30, 44, 1)], []]), 0.8, 0.0)
    pseudo, view = Supervision.uniform(targets, Progress(0, 10)), semi_batch.unlabeled.views["strong"]
    stages = predict_together(student, [view], [pseudo])[0].stages
    plan = assign(student, stages, pseudo)
    teacher = EmaTeacherConfig().build(student, context)
    after = NearestScoreConfig().build(context)(teacher, teacher.look(view), stages, plan, pseudo)
    before, weighed = plan["rpn"]["class"], after["rpn"]["class"]
    assert before.weight[1].any()
    assert not weighed.weight[1].any()
    torch.testing.assert_close(weighed.weight[0], 0.8 * before.weight[0])
    assert weighed.sampled is before.sampled
    assert after["rpn"]["box"] is plan["rpn"]["box"]
    assert after["roi"] is plan["roi"]
