"""What is inside segments: every sum, every row, what is left out, every file."""

import families
import numpy as np
import pytest
import torch
from brute_force import AT, CONTRAST, IDS, LEVELS, TOKEN, WRITERS

import iglens
from iglens.attribution import attribute_averaged, components, shared, strokes
from iglens.attribution.opened import Shares
from iglens.attribution.path import check_top
from iglens.attribution.strokes import turns
from iglens.errors import ArgumentError, ArgumentTypeError, FidelityError


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
                & (inside.indices[0] == head)
                & np.isin(kinds, ["source", "head bias"])
            )
            whole = (heads.components.segments == segment) & (
                heads.components.indices[0] == head
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
@pytest.mark.parametrize("top", [None, 2])
def test_little_memory_changes_nothing_inside(opened, monkeypatch, family, budget, top):
    """One row at a time, or a few, as all together; several rows share a position."""
    monkeypatch.setattr(components, "_RESULT_BUDGETS", 2**20)
    by = "neuron" if family == "mixtral" else "source"
    _, trace, _ = opened(family, by)
    given = {"by": by, "top": top, "baseline": "mean"}
    pairs = [(2, TOKEN), (4, TOKEN), (4, CONTRAST), (6, TOKEN)]
    result = iglens.attribute(trace, pairs, **given)
    little = iglens.attribute(trace, pairs, **given, memory_budget=budget).components
    for name, value in vars(result.components).items():
        other = getattr(little, name)
        if not isinstance(value, np.ndarray):
            assert other == value
        elif value.dtype.kind == "i":
            np.testing.assert_array_equal(other, value)
        else:
            np.testing.assert_allclose(other, value, atol=1e-9)
    np.testing.assert_allclose(little.totals, result.credits, atol=1e-12)


def test_rows_are_taken_as_the_budget_allows(opened, monkeypatch):
    """As many at a time as fit, one at least; what they are shared over counts."""
    taken, given = [], components.Table

    def counted(question, credits):
        taken.append(len(credits))
        return given(question, credits)

    monkeypatch.setattr(components, "Table", counted)
    monkeypatch.setattr(components, "_RESULT_BUDGETS", 2**20)
    _, trace, _ = opened("llama", "source")
    width = trace.states.shape[2]
    n_pairs = 4 * (AT[-1] - 0)
    row = 8 * (12 * width + 6 * n_pairs)
    for budget, expected in ((row - 1, [1, 1, 1]), (2 * row, [2, 1]), (3 * row, [3])):
        taken.clear()
        iglens.attribute(trace, TOKEN, by="source", memory_budget=budget)
        assert taken == expected


def test_a_result_too_large_to_hold_is_refused(opened):
    _, trace, _ = opened("llama", "source")
    with pytest.raises(ArgumentError, match="keep the largest with `top`, or explain"):
        iglens.attribute(trace, TOKEN, by="source", memory_budget=30)
    with pytest.raises(ArgumentError, match="the 5 largest parts of each segment"):
        iglens.attribute(trace, TOKEN, by="source", top=5, memory_budget=1)


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


def routed(decoder, layer):
    """Which experts the model's own router chose at the rows, and their weights."""
    seen = []
    experts = decoder.model.model.layers[layer - 1].mlp.experts
    hook = experts.register_forward_pre_hook(lambda m, args: seen.append(args[1:]))
    decoder.trace(IDS, AT)
    hook.remove()
    rows = torch.tensor(AT) - 1
    return [given[rows].numpy() for given in seen[0]]


def test_an_experts_credit_is_what_it_wrote_and_its_router_weight_is_known():
    decoder = iglens.Decoder(families.build("qwen3 moe").double())
    trace = decoder.trace(IDS, AT, by="neuron")
    result = iglens.attribute(trace, TOKEN, by="neuron")
    inside, kinds = result.components, np.array(result.components.kinds)
    assert set(kinds) == {"expert", "besides experts"}
    np.testing.assert_allclose(
        inside.credits[:, kinds == "besides experts"], 0, atol=1e-9
    )
    np.testing.assert_allclose(inside.totals, result.credits, atol=1e-12)
    held = np.unique(inside.segments)
    assert np.abs(inside.others[:, held]).max() < 1e-9
    for layer in (1, 2):
        mine = (inside.segments == 2 * layer - 1) & (kinds == "expert")
        ids, weights = routed(decoder, layer)
        np.testing.assert_array_equal(inside.indices[:, mine], ids)
        np.testing.assert_allclose(inside.router_weights[:, mine], weights, rtol=1e-12)
    assert np.isnan(inside.router_weights[:, kinds != "expert"]).all()
    table = result.to_pandas()
    chosen = table.inside == "expert"
    assert table.router_weight.notna().equals(chosen)
    assert inside.select([2]).router_weights.shape == (1, len(kinds))
    assert "(router 0." in str(result)


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


def test_the_largest_of_every_row_are_kept_largest_first():
    values = torch.tensor([[1.0, -5, 2, 0], [0, 0, 1, -3]])
    shares = Shares.numbered("head", values)
    two = shares.largest(2)
    assert two.values.tolist() == [[-5, 2], [-3, 1]]
    assert two.indices.tolist() == [[1, 2], [3, 2]]
    assert two.sources.tolist() == [[-1, -1], [-1, -1]]
    assert shares.largest(None) is shares.largest(4) is shares
    unknown = Shares.numbered("head", torch.tensor([[torch.nan, 1.0]]))
    assert unknown.largest(1).indices.tolist() == [[1]]


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
    _, trace, _ = opened("llama", "head")
    monkeypatch.setattr(shared, "TOLERANCE", 1e-30)
    monkeypatch.setattr(strokes, "TOLERANCE", 1e-30)
    with pytest.raises(FidelityError, match="only, not to 1e-30"):
        iglens.attribute(trace, TOKEN, by="head")
    result = iglens.attribute(trace, TOKEN, by="head", strict=False)
    assert not result.components.certified
    assert {flag.kind for flag in result.flags} == {"uncertified"}
    np.testing.assert_allclose(result.components.totals, result.credits, atol=1e-12)
