import torch
from torch import nn

from ssodkit.nn.query_decoder import QueryDecoder, QueryHead
from ssodkit.nn.token_encoder import Tokens

CLAMP = 1e-3


def test_query_head__begins_with_rare_classes_and_boxes_that_stay():
    head, boxes = QueryHead(8, 5, 0.01), torch.rand(2, 3, 4)
    states = torch.randn(2, 3, 8)
    torch.testing.assert_close(head.moved(boxes, states, CLAMP), boxes.clamp(CLAMP, 1.0 - CLAMP))
    torch.testing.assert_close(head.classify(torch.zeros(8)).sigmoid(), torch.full((5,), 0.01))


class Moves(nn.Module):
    """A learned move for each call, whatever the state is."""

    def __init__(self, *moves: float) -> None:
        super().__init__()
        self.moves = nn.ParameterList(nn.Parameter(torch.tensor(move)) for move in moves)
        self.calls = 0

    def forward(self, states):
        self.calls += 1
        return self.moves[self.calls - 1].expand(*states.shape[:-1], 4)


def test_query_decoder__a_layers_answer_also_moves_the_box_of_the_layer_before():
    decoder = QueryDecoder(8, 2, 1, 1, 16, layers=2, num_classes=3, shares_head=True, prior=0.01, clamp=CLAMP)
    moves = Moves(7.0, 0.2, -0.1)  # layer 1 answers; its box goes on; layer 2 answers
    decoder.heads[0].move = moves
    tokens = Tokens(
        torch.randn(1, 4, 8), torch.rand(1, 4, 2), torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 1, 2), ((2, 2),)
    )
    (_, first), (_, second) = decoder(torch.randn(1, 1, 8), torch.full((1, 1, 4), 0.5), tokens, None).said
    torch.testing.assert_close(second, torch.full((1, 1, 4), 0.524979))
    (slopes,) = torch.autograd.grad(second[0, 0, 0], [moves.moves[1]], retain_graph=True)
    torch.testing.assert_close(slopes, torch.tensor(0.249376))
    torch.testing.assert_close(torch.autograd.grad(second[0, 0, 0], [moves.moves[2]])[0], torch.tensor(0.249376))
    assert torch.autograd.grad(first.sum(), [moves.moves[1]], allow_unused=True) == (None,)


def test_query_decoder__shares_one_head_or_has_one_for_each_layer():
    for shares, heads in ((True, 1), (False, 3)):
        decoder = QueryDecoder(8, 2, 1, 1, 16, layers=3, num_classes=3, shares_head=shares, prior=0.01, clamp=CLAMP)
        assert len(decoder.heads) == heads


def test_query_decoder__queries_beside_others_are_decoded_as_if_they_had_been_with_them():
    torch.manual_seed(0)
    decoder = QueryDecoder(8, 2, 1, 2, 16, layers=3, num_classes=3, shares_head=True, prior=0.01, clamp=CLAMP)
    for weight in decoder.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    tokens = Tokens(
        torch.randn(2, 16, 8), torch.rand(2, 16, 2), torch.ones(2, 16, dtype=torch.bool), torch.ones(2, 1, 2), ((4, 4),)
    )
    content, boxes = torch.randn(2, 7, 8, requires_grad=True), torch.rand(2, 7, 4)
    further = 4  # in two groups, before three of the decoder's own
    blocked = torch.zeros(2, 7, 7, dtype=torch.bool)
    blocked[:, :2, 2:4] = blocked[:, 2:4, :2] = blocked[:, further:, :further] = True
    together = decoder(content, boxes, tokens, blocked)
    own = decoder(content[:, further:], boxes[:, further:], tokens, None)
    later = decoder(content[:, :further], boxes[:, :further], tokens, blocked[:, :further], own.trace)
    slope, expected = (
        torch.autograd.grad(sum(state.square().sum() for state in states), [content])[0]
        for states in (
            [*own.states, *later.states],
            together.states,
        )
    )
    torch.testing.assert_close(slope, expected)
    for layer in range(3):
        states = torch.cat([later.states[layer], own.states[layer]], dim=1)
        torch.testing.assert_close(states, together.states[layer])
        for part in range(2):
            said = torch.cat([later.said[layer][part], own.said[layer][part]], dim=1)
            torch.testing.assert_close(said, together.said[layer][part])
