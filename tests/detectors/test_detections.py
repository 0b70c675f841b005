from dataclasses import replace

import torch
from torch import Tensor

from ssodkit.detectors.detections import find, find_by_level, rankable, worth
from ssodkit.detectors.rules import DenseDetectionRule as DenseRule
from ssodkit.detectors.rules import DetectionRule as Rule
from ssodkit.ops.coding import BoxCoder
from ssodkit.structures.predictions import Candidates, Predictions

SIZES = torch.tensor([[100, 100]])


def answers(boxes: list[list[float]], probs: list[list[float]], codes: Tensor | None = None) -> Predictions:
    """One image; `probs` without the background's, which gets what is left."""
    scores = torch.tensor(probs)
    logits = torch.cat([scores, 1.0 - scores.sum(dim=-1, keepdim=True)], dim=-1).log()[None]
    candidates = Candidates(torch.tensor(boxes)[None], torch.ones(1, len(boxes), dtype=torch.bool))
    return Predictions(
        candidates, logits, "softmax", torch.zeros(1, len(boxes), 1, 4) if codes is None else codes, BoxCoder()
    )


def test_find__keeps_the_best_of_each_class_best_first():
    found = find(
        answers(
            [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [50.0, 50.0, 60.0, 60.0]],
            [[0.6, 0.3], [0.7, 0.02], [0.1, 0.8]],
        ),
        SIZES,
        Rule(score=0.05, nms=0.5),
    )
    valid = found.valid[0]
    torch.testing.assert_close(found.confidence[0][valid], torch.tensor([0.8, 0.7, 0.3, 0.1]))
    assert found.labels[0][valid].tolist() == [1, 0, 1, 0]
    assert found.boxes[0][valid][1].tolist() == [0.0, 0.0, 10.0, 9.0]


def test_find__a_threshold_can_be_given_and_is_strict():
    predictions = answers([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]], [[0.5], [0.25]])
    assert find(predictions, SIZES, Rule(score=0.25)).valid.sum() == 1
    assert find(predictions, SIZES, Rule(score=0.25), score=0.2).valid.sum() == 2


def test_find__at_most_so_many():
    boxes = [[10.0 * k, 0.0, 10.0 * k + 5.0, 5.0] for k in range(8)]
    found = find(answers(boxes, [[0.1 + 0.1 * k] for k in range(8)]), SIZES, Rule(at_most=3))
    assert found.valid.tolist() == [[True] * 3]
    assert found.boxes[0, :, 0].tolist() == [70.0, 60.0, 50.0]


def test_find__decodes_the_box_of_the_class():
    codes = torch.zeros(1, 1, 2, 4)
    codes[0, 0, 1, 0] = 1.0  # class 1 moves by a width
    found = find(answers([[0.0, 0.0, 10.0, 10.0]], [[0.4, 0.5]], codes), SIZES, Rule())
    assert found.labels.tolist() == [[1, 0]]
    assert found.boxes.tolist() == [[[10.0, 0.0, 20.0, 10.0], [0.0, 0.0, 10.0, 10.0]]]


def test_find__clips_and_drops_what_is_too_small():
    boxes = [[90.0, 0.0, 120.0, 10.0], [99.5, 50.0, 120.0, 60.0], [130.0, 0.0, 140.0, 10.0]]
    predictions = answers(boxes, [[0.9], [0.8], [0.7]])
    found = find(predictions, SIZES, Rule())
    assert found.boxes[found.valid].tolist() == [[90.0, 0.0, 100.0, 10.0], [99.5, 50.0, 100.0, 60.0]]
    assert find(predictions, SIZES, Rule(minimum_side=1.0)).valid.sum() == 1


def test_find__what_is_dropped_suppresses_nothing():
    sliver = [0.0, 0.0, 100.0, 0.5]
    predictions = answers([sliver, [0.0, 0.0, 100.0, 0.9]], [[0.9], [0.8]])
    assert find(predictions, SIZES, Rule(minimum_side=0.6)).valid.sum() == 1


def test_find__nothing_in_nothing():
    none = answers([[0.0, 0.0, 10.0, 10.0]], [[0.01]])
    assert not find(none, SIZES, Rule()).valid.any()
    empty = find(none[:0], SIZES[:0], Rule())
    assert empty.boxes.shape == (0, 1, 4)
    bare = Predictions(
        Candidates(torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.bool)),
        torch.zeros(2, 0, 3),
        "softmax",
        torch.zeros(2, 0, 2, 4),
        BoxCoder(),
    )
    assert find(bare, SIZES.expand(2, 2), Rule()).boxes.shape == (2, 0, 4)


def test_find__ignores_candidates_that_are_not_valid():
    predictions = answers([[0.0, 0.0, 10.0, 10.0]], [[0.9]])
    predictions.candidates.valid[:] = False
    assert not find(predictions, SIZES, Rule()).valid.any()


def dense(boxes: list[list[float]], probs: list[list[float]], lengths: tuple[int, ...]) -> Predictions:
    """One image of several levels, under a sigmoid."""
    candidates = Candidates(torch.tensor(boxes)[None], torch.ones(1, len(boxes), dtype=torch.bool), lengths=lengths)
    return Predictions(
        candidates, torch.tensor(probs)[None].logit(), "sigmoid", torch.zeros(1, len(boxes), 1, 4), BoxCoder()
    )


APART = [[20.0 * k, 0.0, 20.0 * k + 10.0, 10.0] for k in range(4)]


def test_find_by_level__takes_the_best_pairs_of_each_level():
    predictions = dense(APART, [[0.9, 0.8], [0.7, 0.1], [0.3, 0.2], [0.6, 0.1]], lengths=(2, 2))
    found = find_by_level(predictions, SIZES, DenseRule(per_level=2))
    torch.testing.assert_close(found.confidence[found.valid], torch.tensor([0.9, 0.8, 0.6, 0.3]))
    assert found.labels[found.valid].tolist() == [0, 1, 0, 0]
    assert found.boxes[found.valid][:, 0].tolist() == [0.0, 0.0, 60.0, 40.0]


def test_find_by_level__suppresses_within_a_class_across_levels():
    same = [APART[0], APART[1], APART[0], APART[0]]
    found = find_by_level(dense(same, [[0.9], [0.5], [0.8], [0.7]], lengths=(2, 1, 1)), SIZES, DenseRule(nms=0.6))
    torch.testing.assert_close(found.confidence[found.valid], torch.tensor([0.9, 0.5]))
    other = find_by_level(dense(same[2:], [[0.9, 0.1], [0.1, 0.8]], lengths=(1, 1)), SIZES, DenseRule(score=0.5))
    assert other.labels[other.valid].tolist() == [0, 1]


def test_find_by_level__clips_unless_told_not_to():
    predictions = dense([[-5.0, 90.0, 10.0, 120.0], [130.0, 0.0, 140.0, 10.0]], [[0.9], [0.8]], lengths=(2,))
    clipped = find_by_level(predictions, SIZES, DenseRule())
    assert clipped.boxes[clipped.valid].tolist() == [[0.0, 90.0, 10.0, 100.0]]
    whole = find_by_level(predictions, SIZES, DenseRule(clip=False))
    assert whole.boxes[whole.valid].tolist() == [[-5.0, 90.0, 10.0, 120.0], [130.0, 0.0, 140.0, 10.0]]


def test_find_by_level__the_threshold_is_strict_and_can_be_given():
    predictions = dense(APART[:2], [[0.5], [0.25]], lengths=(2,))
    assert find_by_level(predictions, SIZES, DenseRule(score=0.25)).valid.sum() == 1
    assert find_by_level(predictions, SIZES, DenseRule(score=0.25), score=0.2).valid.sum() == 2


def test_find_by_level__finds_nothing_where_nothing_is_valid_or_a_box_is_inside_out():
    predictions = dense(APART[:1], [[0.9]], lengths=(1,))
    predictions.candidates.valid[:] = False
    assert not find_by_level(predictions, SIZES, DenseRule(score=0.0)).valid.any()
    assert not find_by_level(dense([[9.0, 0.0, 5.0, 9.0]], [[0.9]], (1,)), SIZES, DenseRule(clip=False)).valid.any()
    nothing = find_by_level(predictions[:0], SIZES[:0], DenseRule())
    assert nothing.boxes.shape == (0, 1, 4)


def test_find_by_level__equals_find_where_no_level_has_more_than_go_on():
    generator = torch.Generator().manual_seed(0)
    low = 80.0 * torch.rand(60, 2, generator=generator)
    boxes = torch.cat([low, low + 20.0 * torch.rand(60, 2, generator=generator)], dim=1)
    predictions = dense(boxes.tolist(), torch.rand(60, 3, generator=generator).tolist(), lengths=(40, 20))
    expected, answer = find(predictions, SIZES, Rule()), find_by_level(predictions, SIZES, DenseRule())
    assert expected.valid.sum() > 20
    for name in ("boxes", "labels", "valid", "confidence"):
        assert torch.equal(getattr(answer, name), getattr(expected, name)), name


def test_find__what_was_answered_besides_stays_with_its_candidate():
    said = {"quality": torch.tensor([[1.0, 2.0, 3.0]]), "uncertainty": torch.arange(12.0).view(1, 3, 4)}
    boxes = [[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [50.0, 50.0, 60.0, 60.0]]
    seen = replace(answers(boxes, [[0.3, 0.3], [0.1, 0.7], [0.02, 0.6]]), extra=said)
    dense = replace(
        seen,
        activation="sigmoid",
        candidates=replace(seen.candidates, lengths=(2, 1)),
        class_logits=seen.class_logits[..., :2],
    )
    for found in (find(seen, SIZES, Rule()), find_by_level(dense, SIZES, DenseRule())):
        places = [int(left // 20) for left in found.boxes[0, :3, 0]]
        assert places[0] == 1
        assert found.extra["quality"][0, :3].tolist() == [1.0 + place for place in places]
        assert found.extra["uncertainty"][0, :3, 0].tolist() == [4.0 * place for place in places]


def test_worth__certainty_is_the_mean_of_what_the_four_sides_leave_to_one():
    said = {"uncertainty": torch.tensor([[[-2.0, -1.0, -1.5, -2.5]]]), "quality": torch.tensor([[0.405465]])}
    assert abs(worth(said, "certainty").item() - 0.838393) < 1e-6
    assert abs(0.8**0.5 * worth(said, "certainty").item() ** 0.5 - 0.818972) < 1e-6
    assert abs(0.8**0.5 * worth(said, "quality").item() ** 0.5 - 0.692820) < 1e-6
    assert rankable(frozenset({"class", "box", "uncertainty"})) == {"class", "certainty"}
    assert rankable(frozenset({"class", "box", "quality"})) == {"class", "quality"}
