from dataclasses import replace

import pytest
import torch
from lesson import answers_of

from ssodkit.assigners.regions.base import RegionConfig
from ssodkit.assigners.regions.everything import EverythingConfig
from ssodkit.assigners.regions.top_share import TopShareConfig, top_share
from ssodkit.structures.predictions import Predictions
from ssodkit.structures.teaching import BACKGROUND, IGNORE


def sure_of(worth: list[list[float]], valid: list[list[bool]] | None = None) -> Predictions:
    """A candidate for each number, with that probability for one class and less for another."""
    probs = torch.tensor(worth, dtype=torch.float64)
    answers = answers_of(torch.stack([0.5 * probs, probs], dim=-1).logit())
    if valid is None:
        return answers
    return replace(answers, candidates=replace(answers.candidates, valid=torch.tensor(valid)))


def test_top_share__counts_all_places_of_the_images_and_rounds_down():
    lengths = [100 * 168, 50 * 84, 25 * 42, 13 * 21, 7 * 11]
    assert sum(lengths) == 22_400
    for images, count in ((1, 224), (2, 448)):
        worth = torch.rand(1, images * 22_400, generator=torch.Generator().manual_seed(0))
        learns = top_share(worth, torch.ones_like(worth, dtype=torch.bool), 0.01)
        assert int(learns.sum()) == count
        assert worth[learns].min() >= worth[~learns].max()


@pytest.mark.parametrize(("scope", "learns", "total"), [("batch", [[0, 1], []], 1.7), ("image", [[0], [0]], 1.1)])
def test_top_share__images_compete_or_have_a_share_each(scope, learns, total):
    found = TopShareConfig(share=0.25, scope=scope)(sure_of([[0.9, 0.8, 0.7, 0.1], [0.2, 0.15, 0.05, 0.02]]))
    assert [row.nonzero().flatten().tolist() for row in found.positive] == learns
    assert found.quality[found.positive].sum().item() == pytest.approx(total)


@pytest.mark.parametrize("config", [TopShareConfig(share=0.5), TopShareConfig(share=0.5, scope="image")])
def test_top_share__what_is_not_valid_neither_learns_nor_counts(config: RegionConfig):
    answers = sure_of([[0.9, 0.8, 0.3, 0.2]], [[False, True, True, False]])
    assert config(answers).index.tolist() == [[IGNORE, 1, BACKGROUND, IGNORE]]


def test_everything__each_valid_candidate_learns_from_itself():
    answers = sure_of([[0.9, 0.8, 0.3]], [[True, False, True]])
    assert EverythingConfig()(answers).index.tolist() == [[0, IGNORE, 2]]


@pytest.mark.parametrize("shape", [(2, 0), (0, 4)])
@pytest.mark.parametrize("config", [TopShareConfig(), TopShareConfig(scope="image"), EverythingConfig()])
def test_region__of_nothing_is_nothing(config: RegionConfig, shape: tuple[int, int]):
    assert config(answers_of(torch.zeros(*shape, 2))).index.shape == shape


@pytest.mark.parametrize("config", [TopShareConfig(share=0.5), TopShareConfig(share=0.5, scope="image")])
def test_top_share__never_asks_the_host(config: RegionConfig, host_questions):
    answers = sure_of([[0.9, 0.8, 0.3, 0.2]])
    with host_questions() as asked:
        config(answers)
    assert not asked
