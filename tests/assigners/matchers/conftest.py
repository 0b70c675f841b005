"""Answers that tests write down as boxes and probabilities, and targets for them."""

import pytest
import torch

from ssodkit.ops.coding import BoxCoder
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.teaching import Targets

SIDE = 64.0


@pytest.fixture
def answering():
    """centers (b, n, 2), predicted boxes (b, n, 4), probabilities (b, n, c) -> predictions of anchors of 64 pixels."""

    def make(centers, boxes, probs, stride=8.0, activation="sigmoid") -> Predictions:
        anchors = torch.cat([centers - SIDE / 2, centers + SIDE / 2], dim=-1)
        coder = BoxCoder(0.1, 0.2, largest_ratio=1e6)
        shape = centers.shape[:2]
        return Predictions(
            candidates=Candidates(
                anchors, torch.ones(shape, dtype=torch.bool), torch.zeros(shape).long(), torch.full(shape, stride)
            ),
            class_logits=probs.log() if activation == "softmax" else probs.logit(),
            activation=activation,
            box_codes=coder.encode(anchors, boxes)[:, :, None],
            coder=coder,
        )

    return make


@pytest.fixture
def taught():
    """boxes (b, m, 4), labels (b, m) -> targets of weight 1."""

    def make(boxes, labels) -> Targets:
        full = torch.ones(boxes.shape[:2])
        return Targets(boxes, labels, full.bool(), full, ~full.bool())

    return make
