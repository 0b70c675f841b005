import pytest
import torch
from scipy.ndimage import map_coordinates
from torch.nn.functional import grid_sample
from torch.overrides import TorchFunctionMode

from ssodkit.nn.deformable_attention import DeformableAttention
from ssodkit.ops.deformable import compass

CHANNELS, HEADS, POINTS = 6, 2, 3
SHAPES = [(4, 3), (2, 2), (1, 1)]
TOKENS = sum(height * width for height, width in SHAPES)


@pytest.fixture
def attention():
    """One that has learned something: all of its weights are drawn."""
    torch.manual_seed(0)
    module = DeformableAttention(CHANNELS, HEADS, len(SHAPES), POINTS).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def question(axes: int, queries: int = 5, batch: int = 2) -> dict:
    """The last column of the first level and the last row of the second are padding in image 1."""
    generator = torch.Generator().manual_seed(axes)
    draw = {"generator": generator, "dtype": torch.float64}
    valid = torch.ones(batch, TOKENS, dtype=torch.bool)
    valid[1:, [2, 5, 8, 11, 14, 15]] = False
    return {
        "queries": torch.randn(batch, queries, CHANNELS, **draw),
        "references": torch.rand(batch, queries, len(SHAPES), axes, **draw),
        "tokens": torch.randn(batch, TOKENS, CHANNELS, **draw),
        "shapes": SHAPES,
        "valid": valid,
    }


def looped(module: DeformableAttention, queries, references, tokens, shapes, valid) -> torch.Tensor:
    """Deformable DETR, equation 3, one number at a time; SciPy reads between cells."""
    width, answers = CHANNELS // HEADS, torch.zeros_like(queries)
    starts = [sum(height * width for height, width in shapes[:level]) for level in range(len(shapes))]
    for image, query in torch.cartesian_prod(torch.arange(len(queries)), torch.arange(queries.shape[1])).tolist():
        offsets = module.offsets(queries[image, query]).view(HEADS, len(shapes), POINTS, 2)
        weights = module.weights(queries[image, query]).view(HEADS, -1).softmax(dim=-1).view(HEADS, len(shapes), POINTS)
        projected = module.values(tokens[image]) * valid[image, :, None]
        heads = torch.zeros(CHANNELS, dtype=torch.float64)
        for head, level, point in torch.cartesian_prod(*map(torch.arange, weights.shape)).tolist():
            rows, columns = shapes[level]
            x, y, *sides = references[image, query, level].tolist()
            right, down = offsets[head, level, point].tolist()
            if sides:
                x, y = x + right * sides[0] / (2 * POINTS), y + down * sides[1] / (2 * POINTS)
            else:
                x, y = x + right / columns, y + down / rows
            cells = projected[starts[level] : starts[level] + rows * columns].view(rows, columns, CHANNELS)
            for channel in range(head * width, (head + 1) * width):
                at = [[y * rows - 0.5], [x * columns - 0.5]]
                (read,) = map_coordinates(cells[..., channel].numpy(), at, order=1, mode="grid-constant", cval=0.0)
                heads[channel] += weights[head, level, point] * read
        answers[image, query] = module.output(heads)
    return answers


@pytest.mark.parametrize("axes", [2, 4])
def test_deformable_attention__equals_a_loop_over_everything(attention, axes: int):
    asked = question(axes)
    with torch.no_grad():
        assert (attention(**asked) - looped(attention, **asked)).abs().max() < 1e-12


def test_deformable_attention__has_the_published_number_of_parameters():
    module = DeformableAttention(256, 8, 4, 4)
    assert sum(parameter.numel() for parameter in module.parameters()) == 65_792 + 32_896 + 65_792 + 65_792


def test_deformable_attention__begins_by_looking_around_and_weighing_all_alike():
    torch.manual_seed(0)
    module = DeformableAttention(64, 8, 4, 4)
    for tensor in (
        module.offsets.weight,
        module.weights.weight,
        *(layer.bias for layer in list(module.children())[1:]),
    ):
        assert not tensor.any()
    assert torch.equal(module.offsets.bias, compass(8, 4, 4).flatten())
    for layer in (module.values, module.output):
        bound = (6.0 / 128) ** 0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound


def test_deformable_attention__is_reset_to_how_it_began(attention):
    attention.reset()
    fresh = DeformableAttention(CHANNELS, HEADS, len(SHAPES), POINTS)
    for layer in ("offsets", "weights"):
        for name, parameter in getattr(attention, layer).named_parameters():
            assert torch.equal(parameter, getattr(fresh, layer).get_parameter(name).double())
    assert not attention.values.bias.any()
    assert not attention.output.bias.any()


@pytest.mark.parametrize("axes", [2, 4])
def test_deformable_attention__does_not_see_padding(attention, axes: int):
    asked = question(axes)
    tokens = asked["tokens"].clone().requires_grad_()
    before = attention(**{**asked, "tokens": tokens})
    changed = torch.where(asked["valid"][..., None], tokens, 1e6)
    assert torch.equal(attention(**{**asked, "tokens": changed}), before)
    (gradient,) = torch.autograd.grad(before.square().sum(), tokens)
    assert not gradient[~asked["valid"]].any()
    assert gradient[asked["valid"]].any(dim=-1).sum() > 10


def test_deformable_attention__where_all_is_padding_reads_nothing(attention):
    asked = question(2)
    answer = attention(**{**asked, "valid": torch.zeros_like(asked["valid"])})
    assert torch.equal(answer, attention.output.bias.expand_as(answer))


@pytest.mark.parametrize("axes", [2, 4])
def test_deformable_attention__gradients_are_those_of_small_differences(attention, axes: int):
    asked = question(axes, queries=2)
    names = ("queries", "references", "tokens")
    inputs = [asked.pop(name).requires_grad_() for name in names]
    assert torch.autograd.gradcheck(
        lambda *tensors: attention(**asked, **dict(zip(names, tensors, strict=True))), inputs, fast_mode=True
    )


def test_deformable_attention__a_fresh_one_learns_everything():
    torch.manual_seed(0)
    module = DeformableAttention(CHANNELS, HEADS, len(SHAPES), POINTS).double()
    module(**question(4)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.abs().max() > 0.0, name


class _Precisions(TorchFunctionMode):
    """The types of what is sampled, where, and of the weights."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        if func is grid_sample:
            self.seen += [args[0].dtype, args[1].dtype, answer.dtype]
        elif func is torch.Tensor.softmax:
            self.seen.append(answer.dtype)
        return answer


def test_deformable_attention__samples_in_fp32_under_autocast(attention):
    asked = {
        name: part.float() if name in ("queries", "references", "tokens") else part
        for name, part in question(4).items()
    }
    attention = attention.float()
    exact = attention(**asked)
    with torch.autocast("cpu", dtype=torch.bfloat16), _Precisions() as precisions:
        answer = attention(**asked)
    assert precisions.seen == [torch.float32] * (1 + 3 * len(SHAPES))
    assert answer.dtype == torch.bfloat16
    assert (answer - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(("batch", "queries"), [(2, 0), (0, 3)])
def test_deformable_attention__no_query_or_image_has_no_answer(attention, batch: int, queries: int):
    answer = attention(**question(4, queries, batch))
    assert answer.shape == (batch, queries, CHANNELS)
    answer.sum().backward()
    assert not any(parameter.grad.any() for parameter in attention.parameters())


def test_deformable_attention__a_box_without_sides_is_read_at_its_center(attention):
    asked = question(4)
    asked["references"][..., 2:] = 0.0
    answer = attention(**asked)
    torch.nn.init.zeros_(attention.offsets.weight)
    torch.nn.init.zeros_(attention.offsets.bias)
    torch.testing.assert_close(answer, attention(**{**asked, "references": asked["references"][..., :2]}))


def test_deformable_attention__never_makes_the_host_wait(attention, host_questions):
    asked = question(2)
    with host_questions() as waited:
        attention(**asked).square().sum().backward()
    assert not waited
