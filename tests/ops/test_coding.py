import math

import pytest
import torch

from ssodkit.ops.boxes import pairwise_iou
from ssodkit.ops.coding import BoxCoder, Coder, EdgeCoder, FrameCoder, SideCoder

PROPOSAL = torch.tensor([[10.0, 20.0, 50.0, 100.0]], dtype=torch.float64)
TARGET = torch.tensor([[12.0, 18.0, 60.0, 110.0]], dtype=torch.float64)


def test_encode__has_the_published_numbers():
    near = {"rtol": 0.0, "atol": 5e-7}
    torch.testing.assert_close(pairwise_iou(PROPOSAL, TARGET), torch.tensor([[0.664336]]).double(), **near)
    raw = BoxCoder().encode(PROPOSAL, TARGET)
    torch.testing.assert_close(raw, torch.tensor([[0.150000, 0.050000, 0.182322, 0.139762]]).double(), **near)
    code = BoxCoder(center_std=0.1, side_std=0.2).encode(PROPOSAL, TARGET)
    torch.testing.assert_close(code, torch.tensor([[1.500000, 0.500000, 0.911608, 0.698810]]).double(), **near)


def test_decode__is_the_inverse_of_encode():
    coder = BoxCoder(center_std=0.1, side_std=0.2)
    torch.testing.assert_close(coder.decode(PROPOSAL, coder.encode(PROPOSAL, TARGET)), TARGET, rtol=1e-12, atol=0.0)


def test_decode__limits_growth_and_where_asked_shrinking():
    limit = 1000.0 / 16.0
    codes = torch.tensor([[0.0, 0.0, 99.0, -99.0]], dtype=torch.float64)
    left, top, right, bottom = BoxCoder().decode(PROPOSAL, codes)[0].tolist()
    assert math.isclose(right - left, 40.0 * limit)
    assert math.isclose(bottom - top, 80.0 / limit)
    _, top, _, bottom = BoxCoder(limits_shrinking=False).decode(PROPOSAL, codes)[0].tolist()
    assert math.isclose(bottom - top, 80.0 * math.exp(-99.0), abs_tol=1e-12)
    assert round(math.log(limit), 6) == 4.135167


def test_encode_and_decode__of_nothing_is_nothing():
    nothing = torch.zeros(2, 0, 4)
    assert BoxCoder().encode(nothing, nothing).shape == (2, 0, 4)
    assert BoxCoder().decode(nothing, nothing).shape == (2, 0, 4)


def test_edge_coder__measures_edges_in_candidate_sides():
    code = EdgeCoder().encode(PROPOSAL, TARGET)
    assert code.tolist() == [[2.0 / 40.0, -2.0 / 80.0, 10.0 / 40.0, 10.0 / 80.0]]
    assert EdgeCoder().encode(PROPOSAL, PROPOSAL).tolist() == [[0.0] * 4]


def test_edge_coder__writes_any_box_even_inside_out():
    boxes = torch.tensor([[12.0, 18.0, 60.0, 110.0], [70.0, 90.0, 10.0, 5.0], [3.0, 3.0, 3.0, 3.0]]).double()
    candidates = PROPOSAL.expand(3, 4)
    torch.testing.assert_close(EdgeCoder().decode(candidates, EdgeCoder().encode(candidates, boxes)), boxes)


def test_frame_coder__writes_center_and_sides_in_sides_of_the_frame():
    frame = torch.tensor([[0.0, 0.0, 200.0, 100.0], [10.0, 20.0, 30.0, 60.0]])
    boxes = torch.tensor([[60.0, 30.0, 140.0, 70.0], [10.0, 20.0, 20.0, 60.0]])
    code = FrameCoder().encode(frame, boxes)
    torch.testing.assert_close(code, torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.25, 0.5, 0.5, 1.0]]))
    torch.testing.assert_close(FrameCoder().decode(frame, code), boxes)


@pytest.mark.parametrize("coder", [BoxCoder(0.1, 0.2), EdgeCoder(), SideCoder(), FrameCoder()], ids=repr)
def test_mirrored__codes_say_the_mirrored_box_of_the_mirrored_candidate(coder: Coder):
    width = 200.0
    codes = coder.encode(PROPOSAL, TARGET)
    before = codes.clone()
    mirrored = coder.decode(_mirrored_boxes(PROPOSAL, width), coder.mirrored(codes))
    torch.testing.assert_close(mirrored, _mirrored_boxes(TARGET, width))
    assert torch.equal(codes, before)
    torch.testing.assert_close(coder.mirrored(coder.mirrored(codes)), codes, rtol=1e-15, atol=1e-15)
    assert coder.mirrored(codes[:0]).shape == (0, 4)


def test_mirrored__has_the_numbers_of_humble_teacher():
    coder, codes = BoxCoder(), torch.tensor([[0.10, -0.20, 0.05, 0.30]]).double()
    box, other = torch.tensor([[10.0, 20.0, 30.0, 60.0]]).double(), torch.tensor([[70.0, 20.0, 90.0, 60.0]]).double()
    said = torch.tensor([[11.487289, 5.002824, 32.512711, 58.997176]]).double()
    theirs = torch.tensor([[67.487289, 5.002824, 88.512711, 58.997176]]).double()
    torch.testing.assert_close(coder.decode(box, codes), said, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(coder.decode(other, coder.mirrored(codes)), theirs, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(_mirrored_boxes(theirs, 100.0), said, rtol=0.0, atol=2e-6)


def _mirrored_boxes(boxes: torch.Tensor, width: float) -> torch.Tensor:
    left, top, right, bottom = boxes.unbind(dim=-1)
    return torch.stack([width - right, top, width - left, bottom], dim=-1)


def test_side_coder__has_the_published_numbers_widened_where_it_encodes_alone():
    proposal = torch.tensor([[10.0, 20.0, 50.0, 80.0]], dtype=torch.float64)
    box = torch.tensor([[14.0, 18.0, 54.0, 86.0]], dtype=torch.float64)
    coder = SideCoder(widened=1.0)
    codes = coder.encode(proposal, box)  # left, top, right, bottom; published as left, right, top, bottom
    near = {"rtol": 0.0, "atol": 5e-7}
    torch.testing.assert_close(codes, torch.tensor([[0.975610, -0.327869, 0.975610, 0.983607]]).double(), **near)
    decoded = torch.tensor([[13.902439, 18.032787, 53.902439, 85.901639]], dtype=torch.float64)
    torch.testing.assert_close(coder.decode(proposal, codes), decoded, **near)
    torch.testing.assert_close(SideCoder().decode(proposal, SideCoder().encode(proposal, box)), box)


def test_side_coder__limits_how_far_an_edge_moves():
    far = SideCoder().decode(PROPOSAL, torch.tensor([[-1e4, 0.0, 1e4, 0.0]], dtype=torch.float64))
    assert far.tolist() == [[10.0 - 62.5 * 40.0, 20.0, 50.0 + 62.5 * 40.0, 100.0]]
