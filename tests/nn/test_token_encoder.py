import pytest
import torch

from ssodkit.nn.token_encoder import TokenEncoder

STRIDES = (8, 16)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    made = TokenEncoder(16, heads=2, levels=2, points=2, width=32, layers=2)
    for layer in made.layers:
        torch.nn.init.normal_(layer.attention.offsets.weight, std=0.3)
        torch.nn.init.normal_(layer.attention.weights.weight, std=0.3)
    return made


def maps(*shapes: tuple[int, int], batch: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 16, *shape, generator=generator) for shape in shapes]


def test_token_encoder__tokens_lie_in_the_middle_of_their_cells(encoder):
    tokens = encoder(maps((2, 2), (1, 1)), STRIDES, torch.tensor([[16, 16]]))
    assert tokens.shapes == ((2, 2), (1, 1))
    assert tokens.centers[0].tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75], [0.5, 0.5]]
    assert tokens.valid.all()
    assert (tokens.filled == 1.0).all()


def test_token_encoder__of_a_padded_map_only_the_image_counts(encoder):
    wide = maps((4, 6), (2, 3))
    tokens = encoder(wide, STRIDES, torch.tensor([[24, 20]]))  # 3 x 3 and 2 x 2 cells
    assert tokens.valid.view(-1)[:24].view(4, 6).sum(dim=0).tolist() == [3, 3, 3, 0, 0, 0]
    assert tokens.valid.sum() == 9 + 4
    torch.testing.assert_close(tokens.filled[0], torch.tensor([[0.5, 0.75], [2 / 3, 1.0]]))
    assert tokens.centers[0, 0].tolist() == pytest.approx([1 / 6, 1 / 6])
    assert tokens.centers[tokens.valid].max() < 1.0
    noise = [
        level + 9.0 * (torch.arange(level.shape[-1]) * stride >= 20)
        for level, stride in zip(wide, STRIDES, strict=True)
    ]
    other = encoder(noise, STRIDES, torch.tensor([[24, 20]]))
    torch.testing.assert_close(other.memory[tokens.valid], tokens.memory[tokens.valid])


def test_token_encoder__an_image_of_no_size_is_finite(encoder):
    tokens = encoder(maps((2, 2), (1, 1)), STRIDES, torch.tensor([[0, 0]]))
    assert not tokens.valid.any()
    assert tokens.memory.isfinite().all()
    assert tokens.centers.isfinite().all()


def test_token_encoder__an_800_by_1333_image_has_22223_tokens():
    shapes = ((100, 167), (50, 84), (25, 42), (13, 21))
    encoder = TokenEncoder(4, heads=1, levels=4, points=1, width=4, layers=1)
    levels = [torch.zeros(1, 4, *shape) for shape in shapes]
    with torch.no_grad():
        tokens = encoder(levels, (8, 16, 32, 64), torch.tensor([[800, 1333]]))
    assert tokens.memory.shape[1] == 22_223
    assert tokens.valid.all()
