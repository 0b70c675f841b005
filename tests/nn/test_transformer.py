import pytest
import torch
from torch import nn

from ssodkit.nn.transformer import DecoderLayer, EncoderLayer, Mlp, SelfAttention

CHANNELS, HEADS, QUERIES = 8, 2, 6
SHAPE = (2, 3)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learned(module: nn.Module) -> nn.Module:
    """All of whose parameters are drawn, norms and biases too."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return module


def mask(seed: int = 0) -> torch.Tensor:
    """(2, queries, queries) in which every query sees itself."""
    blocked = drawn(2, QUERIES, QUERIES, seed=seed) > 0.0
    return blocked & ~torch.eye(QUERIES, dtype=torch.bool)


def torchs(ours: SelfAttention) -> nn.MultiheadAttention:
    """With the same weights."""
    theirs = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.project.weight,
            "in_proj_bias": ours.project.bias,
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    return theirs


@pytest.mark.parametrize("masked", [False, True])
def test_self_attention__equals_torchs(masked: bool):
    ours = learned(SelfAttention(CHANNELS, HEADS))
    asking, values = drawn(2, QUERIES, CHANNELS).requires_grad_(), drawn(2, QUERIES, CHANNELS, seed=1).requires_grad_()
    blocked = mask() if masked else None
    per_head = None if blocked is None else blocked.repeat_interleave(HEADS, dim=0)
    expected, _ = torchs(ours)(asking, asking, values, attn_mask=per_head)
    answer = ours(asking, values, blocked)
    torch.testing.assert_close(answer, expected)
    weights = drawn(*answer.shape, seed=2)
    for mine, theirs in zip(
        *(torch.autograd.grad(seen, (asking, values), weights) for seen in (answer, expected)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_self_attention__one_mask_may_serve_all_images():
    ours, asking = learned(SelfAttention(CHANNELS, HEADS)), drawn(2, QUERIES, CHANNELS)
    shared = mask()[:1]
    assert torch.equal(ours(asking, asking, shared), ours(asking, asking, shared.repeat(2, 1, 1)))


def test_self_attention__a_query_that_would_see_none_sees_itself():
    ours, asking = learned(SelfAttention(CHANNELS, HEADS)), drawn(2, QUERIES, CHANNELS).requires_grad_()
    blocked = mask()
    blocked[:, 2] = True
    alone = blocked.clone()
    alone[:, 2, 2] = False
    answer = ours(asking, asking, blocked)
    assert torch.equal(answer, ours(asking, asking, alone))
    (gradient,) = torch.autograd.grad(answer[:, 2].sum(), asking)
    assert gradient[:, 2].any()
    assert not gradient[:, [0, 1, 3, 4, 5]].any()


def test_self_attention__has_no_mask_per_head(largest_tensor):
    many, heads = 128, 8
    ours = SelfAttention(16, heads)
    asking, blocked = torch.zeros(1, many, 16), torch.zeros(1, many, many, dtype=torch.bool)
    with largest_tensor() as seen:
        ours(asking, asking, blocked)
    assert seen.bytes < heads * blocked.numel()


def test_self_attention__begins_as_torchs():
    torch.manual_seed(0)
    ours, theirs = SelfAttention(64, 4), nn.MultiheadAttention(64, 4)
    bound = (6.0 / (64 + 192)) ** 0.5
    assert ours.project.weight.shape == theirs.in_proj_weight.shape
    for weight in (ours.project.weight, theirs.in_proj_weight):
        assert 0.99 * bound < weight.abs().max() <= bound
    assert not ours.project.bias.any()
    assert not ours.output.bias.any()


def test_mlp__has_the_published_numbers_of_parameters():
    assert count(Mlp(512, 256, 256, layers=2)) == 197_120
    assert count(Mlp(256, 256, 4, layers=3)) == 132_612


def test_mlp__has_a_relu_between_its_layers_and_none_behind():
    ours = learned(Mlp(3, 5, 2, layers=3))
    nn.init.constant_(ours.layers[2].bias, -9.0)
    theirs = nn.Sequential(ours.layers[0], nn.ReLU(), nn.Linear(5, 5).double(), nn.ReLU(), nn.Linear(5, 2).double())
    theirs[2].load_state_dict(ours.layers[1].state_dict())
    theirs[4].load_state_dict(ours.layers[2].state_dict())
    features = drawn(2, 7, 3)
    assert torch.equal(ours(features), theirs(features))
    assert ours(features).min() < 0.0
    assert Mlp(3, 5, 2, layers=1).layers[0].weight.shape == (2, 3)


def test_layers__have_the_published_numbers_of_parameters():
    assert count(EncoderLayer(256, 8, 4, 4, 2048)) == 1_282_176
    assert count(DecoderLayer(256, 8, 4, 4, 2048)) == 1_545_856


@pytest.mark.parametrize("kind", [EncoderLayer, DecoderLayer])
def test_layers__begin_with_xavier_matrices_and_biases_of_zero(kind: type[nn.Module]):
    torch.manual_seed(0)
    for name, module in kind(64, 4, 3, 4, 128).named_modules():
        if isinstance(module, nn.Linear) and not name.endswith(("offsets", "weights")):
            bound = (6.0 / (module.in_features + module.out_features)) ** 0.5
            assert 0.98 * bound < module.weight.abs().max() <= bound, name
            assert not module.bias.any(), name
        elif isinstance(module, nn.LayerNorm):
            assert module.weight.eq(1.0).all()
            assert not module.bias.any()


def cells() -> torch.Tensor:
    """(1, tokens, 1, 2): the middles of the cells of one level."""
    rows, columns = SHAPE
    y, x = torch.meshgrid(
        (torch.arange(rows).double() + 0.5) / rows, (torch.arange(columns).double() + 0.5) / columns, indexing="ij"
    )
    return torch.stack([x, y], dim=-1).reshape(1, -1, 1, 2)


def reads_its_own_cell(attention: nn.Module) -> None:
    """At its reference, whatever it asks."""
    for parameter in attention.offsets.parameters():
        nn.init.zeros_(parameter)


def same_weights(ours: nn.Module, theirs: nn.Module, norms: tuple[str, ...]) -> None:
    for layer, other in zip(ours.feed_forward.layers, (theirs.linear1, theirs.linear2), strict=True):
        other.load_state_dict(layer.state_dict())
    for place, norm in enumerate(norms, start=1):
        getattr(theirs, f"norm{place}").load_state_dict(getattr(ours, norm).state_dict())


def as_dense(attention: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of torch's attention, which has the same values, where a query sees one key alone."""
    asked = drawn(2 * CHANNELS, CHANNELS, seed=7)
    return {
        "in_proj_weight": torch.cat([asked, attention.values.weight]),
        "in_proj_bias": torch.cat([asked[:, 0], attention.values.bias]),
        "out_proj.weight": attention.output.weight,
        "out_proj.bias": attention.output.bias,
    }


def test_encoder_layer__is_torchs_where_a_token_reads_its_own_cell():
    ours = learned(EncoderLayer(CHANNELS, HEADS, levels=1, points=1, width=12))
    theirs = nn.TransformerEncoderLayer(CHANNELS, HEADS, 12, dropout=0.0, batch_first=True).double()
    reads_its_own_cell(ours.attention)
    same_weights(ours, theirs, ("attention_norm", "feed_forward_norm"))
    theirs.self_attn.load_state_dict(as_dense(ours.attention))
    tokens, position = drawn(2, 6, CHANNELS), drawn(2, 6, CHANNELS, seed=1)
    expected = theirs(tokens, src_mask=~torch.eye(6, dtype=torch.bool))
    answer = ours(tokens, position, cells().expand(2, -1, -1, -1), [SHAPE], torch.ones(2, 6, dtype=torch.bool))
    torch.testing.assert_close(answer, expected)


def test_decoder_layer__is_torchs_where_a_query_reads_one_cell():
    ours = learned(DecoderLayer(CHANNELS, HEADS, levels=1, points=1, width=12))
    theirs = nn.TransformerDecoderLayer(CHANNELS, HEADS, 12, dropout=0.0, batch_first=True).double()
    reads_its_own_cell(ours.cross_attention)
    same_weights(ours, theirs, ("self_norm", "cross_norm", "feed_forward_norm"))
    theirs.self_attn.load_state_dict(torchs(ours.self_attention).state_dict())
    theirs.multihead_attn.load_state_dict(as_dense(ours.cross_attention))
    queries, tokens, blocked = drawn(2, 6, CHANNELS), drawn(2, 6, CHANNELS, seed=1), mask()
    expected = theirs(
        queries,
        tokens,
        tgt_mask=blocked.repeat_interleave(HEADS, dim=0),
        memory_mask=~torch.eye(6, dtype=torch.bool),
    )
    boxes = torch.cat([cells(), torch.full_like(cells(), 0.3)], dim=-1).expand(2, -1, -1, -1)
    valid = torch.ones(2, 6, dtype=torch.bool)
    answer = ours(queries, torch.zeros_like(queries), boxes, tokens, [SHAPE], valid, blocked)
    torch.testing.assert_close(answer, expected)


def test_decoder_layer__position_is_added_to_what_asks_and_is_asked_but_not_to_what_is_told():
    layer = learned(DecoderLayer(CHANNELS, HEADS, levels=1, points=2, width=12))
    queries, position, tokens = (drawn(2, 6, CHANNELS, seed=seed) for seed in range(3))
    boxes, valid = drawn(2, 6, 1, 4, seed=4).sigmoid(), torch.ones(2, 6, dtype=torch.bool)
    asking = queries + position
    expected, _ = torchs(layer.self_attention)(asking, asking, queries)
    expected = layer.self_norm(queries + expected)
    expected = layer.cross_norm(expected + layer.cross_attention(expected + position, boxes, tokens, [SHAPE], valid))
    expected = layer.feed_forward_norm(expected + layer.feed_forward(expected))
    torch.testing.assert_close(layer(queries, position, boxes, tokens, [SHAPE], valid, None), expected)


def test_encoder_layer__position_decides_where_a_token_looks():
    layer = learned(EncoderLayer(CHANNELS, HEADS, levels=1, points=2, width=12))
    tokens, position = drawn(2, 6, CHANNELS), drawn(2, 6, CHANNELS, seed=1)
    references, valid = cells().expand(2, -1, -1, -1), torch.ones(2, 6, dtype=torch.bool)
    read = layer.attention(tokens + position, references, tokens, [SHAPE], valid)
    hidden = layer.attention_norm(tokens + read)
    expected = layer.feed_forward_norm(hidden + layer.feed_forward(hidden))
    torch.testing.assert_close(layer(tokens, position, references, [SHAPE], valid), expected)


def test_layers__padding_changes_no_valid_token_and_no_query():
    encoder, decoder = (learned(kind(CHANNELS, HEADS, 1, 2, 12)) for kind in (EncoderLayer, DecoderLayer))
    tokens, position, queries = (drawn(2, 6, CHANNELS, seed=seed) for seed in range(3))
    valid = torch.tensor([[True] * 6, [True, True, False] * 2])
    padded = torch.where(valid[..., None], tokens, 1e4)
    references = cells().expand(2, -1, -1, -1)
    boxes = torch.cat([references, torch.full_like(references, 0.3)], dim=-1)
    first, second = (encoder(seen, position, references, [SHAPE], valid)[valid] for seen in (tokens, padded))
    assert torch.equal(first, second)
    first, second = (decoder(queries, position, boxes, seen, [SHAPE], valid, None) for seen in (tokens, padded))
    assert torch.equal(first, second)


def test_decoder_layer__of_no_query_is_nothing_with_a_gradient_of_zero():
    layer = learned(DecoderLayer(CHANNELS, HEADS, levels=1, points=2, width=12))
    nothing, tokens = torch.zeros(2, 0, CHANNELS).double(), drawn(2, 1, CHANNELS)
    boxes, blocked = torch.zeros(2, 0, 1, 4).double(), torch.zeros(2, 0, 0, dtype=torch.bool)
    valid = torch.ones(2, 1, dtype=torch.bool)
    answer = layer(nothing, nothing, boxes, tokens, [(1, 1)], valid, blocked)
    assert answer.shape == (2, 0, CHANNELS)
    answer.sum().backward()
    assert not any(parameter.grad.any() for parameter in layer.parameters())


def test_layers__a_pyramid_of_one_cell_is_finite():
    encoder = EncoderLayer(CHANNELS, HEADS, levels=1, points=4, width=12)
    token = torch.randn(1, 1, CHANNELS, generator=torch.Generator().manual_seed(0)).requires_grad_()
    valid = torch.ones(1, 1, dtype=torch.bool)
    answer = encoder(token, token, torch.full((1, 1, 1, 2), 0.5), [(1, 1)], valid)
    answer.square().sum().backward()
    assert answer.isfinite().all()
    assert token.grad.isfinite().all()


def test_layers__under_autocast_stay_near():
    layer = DecoderLayer(CHANNELS, HEADS, levels=1, points=2, width=12)
    queries, position, tokens = (drawn(2, 6, CHANNELS, seed=seed).float() for seed in range(3))
    arguments = (drawn(2, 6, 1, 4).float().sigmoid(), tokens, [SHAPE], torch.ones(2, 6, dtype=torch.bool), mask())
    exact = layer(queries, position, *arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = layer(queries, position, *arguments)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, exact, rtol=0.0, atol=0.05)


def test_decoder_layer__never_makes_the_host_wait(host_questions):
    layer = learned(DecoderLayer(CHANNELS, HEADS, levels=1, points=2, width=12))
    queries, tokens, boxes = drawn(2, 6, CHANNELS), drawn(2, 6, CHANNELS), drawn(2, 6, 1, 4).sigmoid()
    valid, blocked = torch.ones(2, 6, dtype=torch.bool), mask()
    with host_questions() as waited:
        layer(queries, queries, boxes, tokens, [SHAPE], valid, blocked).square().sum().backward()
    assert not waited
