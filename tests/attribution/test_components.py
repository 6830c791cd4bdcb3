"""Heads, neurons and source tokens: brute force, axioms, planted models, every sum."""

import families
import numpy as np
import oracle
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import iglens
from iglens.attribution import attribute_averaged
from iglens.attribution.components import largest
from iglens.attribution.path import check_top
from iglens.attribution.strokes import turns
from iglens.errors import ArgumentError, ArgumentTypeError, FidelityError
from iglens.inside.directions import Directions

IDS = [3, 1, 4, 1, 5, 9]
AT = [2, 4, 6]
TOKEN = iglens.Target((7,), "x")
CONTRAST = iglens.Target((7,), "x", (11,), "y")
WRITERS = {  # attention and MLP of block 2, by their names in each family
    "llama": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "qwen3": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "mistral": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "gemma3": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "olmo2": ("model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"),
    "gpt2": ("transformer.h.1.attn.c_proj", "transformer.h.1.mlp.c_proj"),
    "neox": (
        "gpt_neox.layers.1.attention.dense",
        "gpt_neox.layers.1.mlp.dense_4h_to_h",
    ),
    "phi": ("model.layers.1.self_attn.dense", "model.layers.1.mlp.fc2"),
}
POST_NORMS = {
    "gemma3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
}
PARALLEL = ("neox", "phi")
LEVELS = ["head", "neuron", "source"]


@pytest.fixture(scope="module")
def opened():
    """Decoder, trace and result of a family, made once."""
    known = {}

    def get(family, by, target=TOKEN, **options):
        key = family, by
        if key not in known:
            decoder = iglens.Decoder(families.build(family).double())
            known[key] = decoder, decoder.trace(IDS, AT, by=by)
        decoder, trace = known[key]
        result = iglens.attribute(trace, target, by=by, **options)
        return decoder, trace, result

    return get


@pytest.mark.parametrize("family", WRITERS)
@pytest.mark.parametrize("by", LEVELS)
def test_parts_and_others_are_every_segments_credit(opened, family, by):
    _, trace, result = opened(family, by)
    inside = result.components
    np.testing.assert_allclose(inside.totals, result.credits, atol=1e-12)
    held = np.unique(inside.segments)
    assert np.abs(inside.others[:, held]).max() < 1e-9
    assert inside.certified
    assert np.nanmax(inside.residual) <= 1e-6
    layers = iglens.attribute(trace, TOKEN)
    np.testing.assert_allclose(result.by_layer.credits, layers.credits, atol=1e-12)


def level(decoder, family, target, unit):
    """The oracle's level: the model's own modules, whole logits, float64."""
    known = families.FAMILIES[family]
    norm, head = (decoder.model.get_submodule(n) for n in (known.norm, known.head))

    def of(states):
        z = known.post(head(norm(states)))
        value = oracle.level(z, list(target.ids), unit)
        if target.against:
            value = value - oracle.level(z, list(target.against), unit)
        return value

    return of


def given_to(decoder, name):
    """What a module takes and gives at the explained rows, by a hook of our own."""
    kept = {}
    module = decoder.model.get_submodule(name)
    hook = module.register_forward_hook(
        lambda m, args, out: kept.update(taken=args[0], given=out)
    )
    with torch.no_grad():
        decoder.model(torch.tensor([IDS]))
    hook.remove()
    rows = torch.tensor(AT) - 1
    taken, given = (kept[side].reshape(len(IDS), -1)[rows] for side in kept)
    return module, taken, given


def columns(module):
    """What the writer makes of every entry of what it takes: width x d_model."""
    weight = module.weight.detach()
    return weight if weight.shape[0] == module.__dict__.get("nx", -1) else weight.T


def vectors(decoder, family, part):
    """The vector that every entry of the writer's input adds, post-norm frozen."""
    module, taken, given = given_to(decoder, WRITERS[family][part])
    matrix = columns(module)
    if family in POST_NORMS:
        block = decoder.model.get_submodule("model.layers.1")
        norm = getattr(block, POST_NORMS[family][part])
        gain = norm.weight.detach() + (1 if family == "gemma3" else 0)
        eps = getattr(norm, "eps", None) or norm.variance_epsilon
        scale = (given.square().mean(1) + eps).sqrt()
        return taken[:, :, None] * matrix * (gain / scale[:, None])[:, None]
    return taken[:, :, None] * matrix


def gradients(decoder, family, trace, part, target, unit):
    """The closed gradient of block 2's part, by brute force, per row."""
    of, parted = level(decoder, family, target, unit), trace.inside[2]
    found = []
    for row in range(len(AT)):
        start, end = trace.states[1, row], trace.states[2, row]
        inner = [*parted.inner(start[None], end[None], slice(row, row + 1))[:, 0]]
        every = [start, *inner, end]
        total = torch.zeros_like(start)
        for a, b, weight in parted.strokes(part):
            g = oracle.average_gradient(of, every[a], every[b])
            step = every[b] - every[a]
            with torch.no_grad():
                change = (of(every[b][None]) - of(every[a][None]))[0]
            missed = change - g @ step
            total += weight * (g + missed * step / step.square().sum())
        found.append(total)
    return torch.stack(found)


@pytest.mark.parametrize("family", WRITERS)
@pytest.mark.parametrize("by", ["head", "neuron"])
def test_brute_force_gives_the_same(opened, family, by):
    unit, target = "probability", CONTRAST
    decoder, trace, result = opened(family, by, target, unit=unit)
    part = 0 if by == "head" else 1
    g = gradients(decoder, family, trace, part, target, unit)
    expected = (vectors(decoder, family, part) * g[:, None]).sum(2)
    if by == "head":
        n_heads = decoder.model.config.num_attention_heads
        expected = expected.unflatten(1, (n_heads, -1)).sum(2)
    inside, segment = result.components, 2 + part
    mine = [
        i
        for i, kind in enumerate(inside.kinds)
        if kind == by and inside.segments[i] == segment
    ]
    assert inside.indices[mine].tolist() == list(range(expected.shape[1]))
    np.testing.assert_allclose(inside.credits[:, mine], expected, atol=2e-9)


@pytest.mark.parametrize("unit", ["log_probability", "log_odds"])
def test_other_units_too(opened, unit):
    decoder, trace, result = opened("llama", "head", TOKEN, unit=unit)
    g = gradients(decoder, "llama", trace, 0, TOKEN, unit)
    expected = (vectors(decoder, "llama", 0) * g[:, None]).sum(2)
    expected = expected.unflatten(1, (4, -1)).sum(2)
    inside = result.components
    mine = (inside.segments == 2) & (np.array(inside.kinds) == "head")
    np.testing.assert_allclose(inside.credits[:, mine], expected, atol=1e-7)


@pytest.mark.parametrize("family", WRITERS)
def test_sources_and_what_is_besides_are_the_heads(opened, family):
    _, _, heads = opened(family, "head")
    _, _, result = opened(family, "source")
    inside = result.components
    kinds = np.array(inside.kinds)
    for segment in np.unique(inside.segments):
        here = inside.segments == segment
        for head in range(4):
            mine = (
                here
                & (inside.indices == head)
                & np.isin(kinds, ["source", "head bias"])
            )
            whole = (heads.components.segments == segment) & (
                heads.components.indices == head
            )
            np.testing.assert_allclose(
                inside.credits[:, mine].sum(1),
                heads.components.credits[:, whole][:, 0],
                atol=1e-12,
            )
        sources = here & (kinds == "source")
        np.testing.assert_allclose(
            inside.tokens[:, segment].sum(1),
            inside.credits[:, sources].sum(1),
            atol=1e-12,
        )


def test_nothing_is_read_from_later_tokens(opened):
    _, _, result = opened("llama", "source")
    for row, position in enumerate(AT):
        assert (result.components.tokens[row, :, position:] == 0).all()
        assert np.abs(result.components.tokens[row, :, :position]).min(1).max() > 0


@pytest.mark.parametrize("by", LEVELS)
def test_what_is_left_out_is_among_the_others(opened, by):
    _, _, full = opened("llama", by)
    _, _, short = opened("llama", by, top=2)
    inside = short.components
    np.testing.assert_allclose(inside.totals, full.credits, atol=1e-12)
    assert len(inside.kinds) < len(full.components.kinds)
    np.testing.assert_array_equal(inside.n_parts, full.components.n_parts)
    for row in range(len(AT)):
        assert inside.largest(row, 2) == sorted(
            inside.largest(row, 2), key=lambda i: -abs(inside.credits[row, i])
        )
        best = full.components.largest(row, 1)[0]
        kept = inside.largest(row, 1)[0]
        assert inside.credits[row, kept] == full.components.credits[row, best]
    if by == "source":
        np.testing.assert_array_equal(inside.tokens, full.components.tokens)


def test_several_targets_at_one_position_are_as_each_alone(opened):
    _, trace, _ = opened("llama", "head")
    targets = [TOKEN, CONTRAST, iglens.Target((2, 5), "s")]
    together = iglens.attribute(trace, targets, by="head")
    for _number, target in enumerate(targets):
        alone = iglens.attribute(trace, target, by="head")
        rows = [r for r, t in enumerate(together.targets) if t == target]
        np.testing.assert_allclose(
            together.select(rows).components.credits,
            alone.components.credits,
            atol=1e-12,
        )
    assert [g.tolist() for g in turns(torch.tensor([0, 0, 1, 1, 1]))] == [
        [0, 2],
        [1, 3],
        [4],
    ]


@pytest.mark.parametrize("by", LEVELS)
def test_rows_at_some_of_the_positions_are_as_each_alone(opened, by):
    _, trace, _ = opened("llama", by)
    pairs = [(4, iglens.Target((11,), "y")), (6, CONTRAST), (6, TOKEN)]
    together = iglens.attribute(trace, pairs, by=by)
    assert together.positions.tolist() == [4, 6, 6]
    every = together.components
    for row, target in enumerate(together.targets):
        pair = int(together.positions[row]), target
        alone = iglens.attribute(trace, [pair], by=by).components
        np.testing.assert_allclose(every.credits[row], alone.credits[0], atol=1e-9)
        if by == "source":
            np.testing.assert_allclose(every.tokens[row], alone.tokens[0], atol=1e-9)


@pytest.mark.parametrize("family", ["llama", "neox", "mixtral"])
@pytest.mark.parametrize("budget", [1, 200_000])
def test_little_memory_changes_nothing_inside(opened, family, budget):
    by = "neuron" if family == "mixtral" else "source"
    _, trace, result = opened(family, by)
    little = iglens.attribute(trace, TOKEN, by=by, memory_budget=budget).components
    every = result.components
    assert little.kinds == every.kinds
    assert np.array_equal(little.segments, every.segments)
    np.testing.assert_allclose(little.credits, every.credits, atol=1e-9)
    np.testing.assert_allclose(little.totals, result.credits, atol=1e-12)


def test_what_is_left_out_was_read_from_tokens_all_the_same(opened):
    _, trace, result = opened("llama", "source")
    few = iglens.attribute(trace, TOKEN, by="source", top=1).components
    assert len(few.kinds) < len(result.components.kinds)
    np.testing.assert_allclose(few.tokens, result.components.tokens, atol=1e-12)
    assert few.n_parts.tolist() == result.components.n_parts.tolist()


def test_credits_are_linear_in_the_target(opened):
    """A contrast is the difference of its sides, part by part."""
    _, trace, _ = opened("llama", "neuron")
    one, other, both = (
        iglens.attribute(trace, t, by="neuron").components.credits
        for t in (TOKEN, iglens.Target((11,), "y"), CONTRAST)
    )
    np.testing.assert_allclose(one - other, both, atol=1e-9)


def plain(**changes):
    """A GPT-2 of one block that tests may plant weights in."""
    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 4, "vocab_size": 23}
    model = GPT2LMHeadModel(GPT2Config(**sizes | changes, tie_word_embeddings=False))
    return model.double().eval()


def heads_of(model, by="head", target=TOKEN):
    decoder = iglens.Decoder(model)
    trace = decoder.trace(IDS, [6], by=by)
    result = iglens.attribute(trace, target, by=by)
    inside = result.components
    mine = np.array(inside.kinds) == ("source" if by == "source" else by)
    return result, inside.credits[0, mine]


def test_heads_that_cancel_get_opposite_credits_and_together_none():
    model = plain()
    attention = model.transformer.h[0].attn
    with torch.no_grad():
        qkv = attention.c_attn.weight.view(16, 3, 4, 4)
        qkv[:, :, 1] = qkv[:, :, 0]
        attention.c_attn.bias.zero_()
        attention.c_proj.bias.fill_(0.1)
        out = attention.c_proj.weight.view(4, 4, 16)
        out[1] = -out[0]
        out[2:] = 0
    result, heads = heads_of(model)
    bias = result.components.kinds.index("bias")
    rest = result.credits[0, 0] - result.components.credits[0, bias]
    assert abs(rest) < 1e-12 < abs(heads[0])
    assert heads[0] == pytest.approx(-heads[1], abs=1e-12)
    np.testing.assert_allclose(heads[2:], 0, atol=1e-15)


def test_permuted_heads_have_permuted_credits():
    model, order = plain(), [2, 0, 3, 1]
    _, before = heads_of(model)
    attention = model.transformer.h[0].attn
    with torch.no_grad():
        for tensor in (attention.c_attn.weight, attention.c_attn.bias):
            view = tensor.view(*tensor.shape[:-1], 3, 4, 4)
            view.copy_(view[..., order, :].clone())
        view = attention.c_proj.weight.view(4, 4, 16)
        view.copy_(view[order].clone())
    _, after = heads_of(model)
    np.testing.assert_allclose(after, before[order], atol=1e-12)


def test_a_planted_neuron_gets_the_credit():
    """One neuron fires and writes the answer's direction; all others write nothing."""
    model = plain(activation_function="relu")
    mlp, neuron, token = model.transformer.h[0].mlp, 37, 7
    with torch.no_grad():
        mlp.c_fc.weight.zero_()
        mlp.c_fc.bias.zero_()
        mlp.c_fc.bias[neuron] = 1.0
        mlp.c_proj.weight.zero_()
        mlp.c_proj.bias.zero_()
        mlp.c_proj.weight[neuron] = 8 * model.lm_head.weight[token]
    result, neurons = heads_of(model, "neuron")
    assert abs(result.credits[0, 1]) > 1e-3
    assert neurons[neuron] == pytest.approx(result.credits[0, 1], abs=1e-12)
    assert np.count_nonzero(neurons) == 1


def test_a_planted_head_reads_the_planted_token():
    """One head looks at one token alone, and writes what that token is."""
    model, head, source = plain(), 2, 3
    attention = model.transformer.h[0].attn
    with torch.no_grad():
        attention.c_attn.bias.zero_()
        attention.c_proj.bias.zero_()
        out = attention.c_proj.weight.view(4, 4, 16)
        out[[0, 1, 3]] = 0
        marked = model.transformer.h[0].ln_1(
            model.transformer.wte.weight[IDS] + model.transformer.wpe.weight[: len(IDS)]
        )
        keys = attention.c_attn.weight[:, 16:32].view(16, 4, 4)
        queries = attention.c_attn.weight[:, :16].view(16, 4, 4)
        sharp = torch.linalg.pinv(marked)[:, source]
        keys[:, head] = sharp[:, None] * 60
        last = torch.linalg.pinv(marked)[:, len(IDS) - 1]
        queries[:, head] = last[:, None] * 60
    result, _ = heads_of(model)
    result, _pairs = heads_of(model, "source")
    inside = result.components
    best = inside.largest(0, 1)[0]
    assert (inside.indices[best], inside.sources[best]) == (head, source)
    assert inside.credits[0, best] == pytest.approx(result.credits[0, 0], rel=1e-6)


def test_a_part_that_writes_nothing_gets_nothing():
    model = plain()
    with torch.no_grad():
        model.transformer.h[0].attn.c_proj.weight.view(4, 4, 16)[1] = 0
    _, heads = heads_of(model)
    assert heads[1] == 0
    assert np.abs(np.delete(heads, 1)).min() > 0


def test_an_experts_credit_is_what_it_wrote():
    decoder = iglens.Decoder(families.build("qwen3 moe").double())
    trace = decoder.trace(IDS, AT, by="neuron")
    result = iglens.attribute(trace, TOKEN, by="neuron")
    inside = result.components
    assert set(inside.kinds) == {"expert", "besides experts"}
    besides = np.array(inside.kinds) == "besides experts"
    np.testing.assert_allclose(inside.credits[:, besides], 0, atol=1e-9)
    assert inside.indices.max() < 4
    np.testing.assert_allclose(inside.totals, result.credits, atol=1e-12)
    held = np.unique(inside.segments)
    assert np.abs(inside.others[:, held]).max() < 1e-9


@pytest.mark.parametrize("extension", ["json", "safetensors"])
def test_files_bring_it_back(opened, tmp_path, extension):
    _, _, result = opened("gemma3", "source", top=3)
    file = tmp_path / f"x.{extension}"
    result.save(file)
    found = iglens.Attribution.load(file).components
    for name, value in vars(result.components).items():
        other = getattr(found, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(other, value)
        else:
            assert other == value


def test_the_table_adds_up(opened):
    _, _, result = opened("llama", "head", top=2)
    table = result.to_pandas()
    total = table.groupby("row").credit.sum()
    np.testing.assert_allclose(total, result.final - result.baseline, atol=1e-12)
    by_segment = table.groupby(["row", "layer", "component"], sort=False).credit.sum()
    np.testing.assert_allclose(
        by_segment.to_numpy().reshape(result.credits.shape), result.credits, atol=1e-12
    )
    inside = table[table.inside == "head"]
    assert inside["index"].between(0, 3).all()
    assert set(table.inside.dropna()) == {"head", "others"}


def test_what_cannot_be_opened_says_why(opened):
    decoder, trace, _ = opened("llama", "head")
    with pytest.raises(ArgumentError, match="only levels of tokens can"):
        iglens.attribute(trace, iglens.ENTROPY, by="head")
    with pytest.raises(ArgumentError, match="close on the observed credits"):
        iglens.attribute(trace, TOKEN, by="head", estimator=iglens.Gradient())
    with pytest.raises(ArgumentError, match="was not asked for"):
        iglens.attribute(trace, TOKEN, by="source")
    shallow = decoder.trace(IDS, AT, by="sublayer")
    with pytest.raises(ArgumentError, match="the trace was not made for it"):
        iglens.attribute(shallow, TOKEN, by="head")
    reasons = iglens.attribute(trace, TOKEN, by="head").components.reasons
    assert list(reasons) == [1, 3, 5]
    given = {"by": "head", "baseline": "zero", "layers": [1]}
    reasons = iglens.attribute(trace, TOKEN, **given).components.reasons
    assert list(reasons) == [0, 2, 3]
    assert "starts at a baseline" in reasons[0]
    assert "merged" in reasons[3]
    given = {"by": "head", "baseline": "zero", "layers": [3]}
    with pytest.raises(ArgumentError, match="by head: layers are merged"):
        iglens.attribute(trace, TOKEN, **given)


@pytest.mark.parametrize("by", LEVELS)
def test_parts_and_others_are_the_credits_of_averaged_baselines_too(opened, by):
    _, trace, _ = opened("llama", by)
    several = ["zero", "embedding", "mean"]
    found = attribute_averaged(trace, TOKEN, by=by, baselines=several)
    np.testing.assert_allclose(found.components.totals, found.credits, atol=1e-12)
    zero = iglens.attribute(trace, TOKEN, by=by, baseline="zero")
    assert not np.allclose(zero.credits[:, 0], found.credits[:, 0])
    assert np.array_equal(found.components.segments, zero.components.segments)
    assert np.array_equal(found.components.credits, zero.components.credits)


@pytest.mark.parametrize(
    ("top", "error", "said"),
    [
        (0, ArgumentError, "at least 1 part"),
        (-1, ArgumentError, "at least 1 part"),
        (1.5, ArgumentTypeError, "whole number"),
        (True, ArgumentTypeError, "whole number"),
        ("3", ArgumentTypeError, "whole number"),
    ],
)
def test_what_is_no_number_of_parts_is_refused(top, error, said):
    with pytest.raises(error, match=said):
        check_top(top)


def test_parts_to_keep_are_checked_before_anything_is_read(opened):
    decoder, trace, _ = opened("llama", "head")
    with pytest.raises(ArgumentError, match="at least 1 part"):
        iglens.attribute(trace, TOKEN, by="head", top=0)
    with pytest.raises(ArgumentError, match="at least 1 part"):
        iglens.Reader(by="head", top=0).check(decoder)
    for top in (None, 1, np.int64(1)):
        check_top(top)


def test_the_largest_of_every_row_are_kept():
    values = np.array([[1.0, -5, 2, 0], [0, 0, 1, -3]])
    assert largest(values, 1).tolist() == [False, True, False, True]
    assert largest(values, None).all()
    assert largest(values, 4).all()
    assert largest(np.array([[np.nan, 1.0]]), 1).tolist() == [False, True]


def features(trace, seed=0, n=6):
    """Random directions with coefficients that miss a part of the update."""
    generator = torch.Generator().manual_seed(seed)
    width, rows = trace.states.shape[2], len(trace.positions)
    vectors = torch.randn(n, width, generator=generator)
    return Directions(vectors, torch.randn(rows, n, generator=generator))


@pytest.mark.parametrize(("family", "part"), [("llama", "mlp"), ("neox", "attention")])
def test_directions_of_ones_own_and_their_error_are_the_credit(opened, family, part):
    decoder, trace, _ = opened(family, "head")
    given = features(trace)
    result = iglens.attribute(
        trace, TOKEN, by="sublayer", directions={(2, part): given}
    )
    inside, index = result.components, 0 if part == "attention" else 1
    assert inside.kinds == ("direction",) * 6 + ("error",)
    np.testing.assert_allclose(inside.totals, result.credits, atol=1e-12)
    assert np.abs(inside.others[:, 2 + index]).max() < 1e-12
    g = gradients(decoder, family, trace, index, TOKEN, "probability")
    expected = (g @ given.vectors.double().T) * given.coefficients.double()
    np.testing.assert_allclose(inside.credits[:, :6], expected, atol=2e-9)


def test_directions_of_a_whole_layer(opened):
    _, trace, _ = opened("llama", "head")
    given = features(trace)
    result = iglens.attribute(trace, TOKEN, directions={(3, "block"): given})
    inside = result.components
    assert set(inside.segments.tolist()) == {2}
    np.testing.assert_allclose(inside.totals, result.credits, atol=1e-12)


def test_directions_that_do_not_fit_are_refused(opened):
    _, trace, _ = opened("llama", "head")
    good = features(trace)
    with pytest.raises(ArgumentError, match=r"names \[\(9, 'mlp'\)\]; this path has"):
        iglens.attribute(trace, TOKEN, by="sublayer", directions={(9, "mlp"): good})
    bad = Directions(torch.zeros(2, 5), torch.zeros(3, 2))
    with pytest.raises(ArgumentError, match="are for 3 positions of width 5"):
        iglens.attribute(trace, TOKEN, by="sublayer", directions={(2, "mlp"): bad})
    with pytest.raises(ArgumentError, match="4 columns, but there are 2 directions"):
        Directions(torch.zeros(2, 5), torch.zeros(3, 4))
    with pytest.raises(ArgumentError, match="`vectors` holds NaN"):
        Directions(torch.full((2, 5), torch.nan), torch.zeros(3, 2))


@pytest.mark.parametrize("family", ["llama", "neox"])
@pytest.mark.parametrize("by", LEVELS)
def test_through_a_lens_the_write_is_opened_and_the_rest_is_the_lenss(
    opened, family, by
):
    decoder, trace, _ = opened(family, by)
    width, n = trace.states.shape[2], decoder.n_layers
    torch.manual_seed(0)
    weight = torch.randn(n, width, width, dtype=torch.float64) / 10
    bias = torch.randn(n, width, dtype=torch.float64) / 10
    lens = iglens.AffineLens("random", n, tuple(range(n)), weight, bias)
    result = iglens.attribute(trace, TOKEN, by=by, lens=lens)
    inside = result.components
    np.testing.assert_allclose(inside.totals, result.credits, atol=1e-12)
    held = np.unique(inside.segments)
    assert np.abs(inside.others[:, held]).max() < 1e-9
    moved = np.array(inside.kinds) == "translation"
    np.testing.assert_allclose(
        inside.credits[:, moved], result.translations[:, held], atol=1e-12
    )
    parts = np.zeros_like(result.credits)
    for at in np.flatnonzero(~moved):
        parts[:, inside.segments[at]] += inside.credits[:, at]
    np.testing.assert_allclose(parts[:, held], result.writes[:, held], atol=1e-9)


def test_what_is_not_certified_is_refused_or_flagged(opened, monkeypatch):
    from iglens.attribution import components, strokes

    _, trace, _ = opened("llama", "head")
    monkeypatch.setattr(components, "TOLERANCE", 1e-30)
    monkeypatch.setattr(strokes, "TOLERANCE", 1e-30)
    with pytest.raises(FidelityError, match="only, not to 1e-30"):
        iglens.attribute(trace, TOKEN, by="head")
    result = iglens.attribute(trace, TOKEN, by="head", strict=False)
    assert not result.components.certified
    assert {flag.kind for flag in result.flags} == {"uncertified"}
    np.testing.assert_allclose(result.components.totals, result.credits, atol=1e-12)


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.parametrize("by", ["head", "neuron"])
def test_the_last_layer_of_the_embedded_model_is_brute_forces(embedded, by):
    """Gradients by autograd through the model's own norm and head, 192 nodes."""
    ids = embedded.encode("The capital of France is")
    paris = embedded.target(" Paris", ids)
    trace = embedded.trace(ids, [len(ids)], by=by)
    inside = iglens.attribute(trace, paris, by=by).components
    assert inside.certified
    part = 0 if by == "head" else 1
    norm, weight = embedded.model.model.norm, embedded.model.lm_head.weight.double()
    eps, gain = norm.variance_epsilon, norm.weight.detach().double()

    def level_of(states):
        scale = (states.square().mean(1, keepdim=True) + eps).sqrt()
        return ((states / scale * gain) @ weight.T).softmax(1)[:, paris.ids[0]]

    parted, layer = trace.inside[30], 30
    every = [trace.states[29, 0], parted.between[0, 0], trace.states[30, 0]]
    start, end = (every[part].double(), every[part + 1].double())
    g, step = oracle.average_gradient(level_of, start, end), end - start
    with torch.no_grad():
        change = (level_of(end[None]) - level_of(start[None]))[0]
    g = g + (change - g @ step) * step / step.square().sum()
    block = embedded.model.model.layers[layer - 1]
    module = block.self_attn.o_proj if by == "head" else block.mlp.down_proj
    kept = []
    hook = module.register_forward_hook(lambda m, args, out: kept.append(args[0]))
    with torch.no_grad():
        embedded.model(torch.tensor([ids]))
    hook.remove()
    expected = (kept[0][0, -1].double() * (g @ module.weight.detach().double())).numpy()
    if by == "head":
        expected = expected.reshape(9, 64).sum(1)
    here = inside.segments == 2 * (layer - 1) + part
    np.testing.assert_allclose(inside.credits[0, here], expected, atol=2e-6)
