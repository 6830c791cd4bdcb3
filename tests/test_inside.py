"""Sums inside a part, held against vectors written out, which the package avoids."""

import pytest
import torch

from iglens import ArgumentError
from iglens.inside import Attended, FrozenNorm, Mixture, Writing
from iglens.readout.scaled_norm import ScaledNorm

ROWS, WIDTH, D_MODEL, HEADS, GROUPS, TOKENS = 3, 12, 8, 4, 2, 5


def seeded(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


MATRIX, BIAS, TAKEN = seeded(D_MODEL, WIDTH), seeded(D_MODEL, seed=1), seeded(3, 12)
GRADIENT, START = seeded(ROWS, D_MODEL, seed=2), seeded(ROWS, D_MODEL, seed=3)
VALUES = seeded(GROUPS, TOKENS, WIDTH // HEADS, seed=4)
WEIGHTS = seeded(ROWS, HEADS, TOKENS, seed=5).softmax(-1)
VALUE_BIAS = seeded(GROUPS, WIDTH // HEADS, seed=6)
NORMS = {
    "none": None,
    "RMSNorm": ScaledNorm(seeded(8, seed=7), torch.zeros(8).double(), False, True),
    "LayerNorm": ScaledNorm(seeded(8, seed=7), seeded(8, seed=8), True, True, eps=1e-5),
    "projection": ScaledNorm(
        seeded(8, 8, seed=7), seeded(8, seed=8), True, True, eps=1e-5
    ),
}


def writing_with(norm, **changes):
    form, given = NORMS[norm], TAKEN @ MATRIX.T + BIAS
    frozen = None if form is None else FrozenNorm.at(form, given)
    made = given if form is None else form(given)
    values = {
        "update": 0.6 * made - 0.25 * START,
        "taken": TAKEN,
        "transposed": lambda vectors: vectors @ MATRIX,
        "bias": BIAS,
        "norm": frozen,
        "scale": 0.6,
        "carried": -0.25 * START,
        "n_heads": HEADS,
        "has_neurons": True,
    }
    return Writing(**values | changes)


def slowly(norm, vectors):
    """What these vectors, one for each row and part, add to the update."""
    form = NORMS[norm]
    if form is None:
        return 0.6 * vectors
    scale = form.scale(TAKEN @ MATRIX.T + BIAS)
    return 0.6 * form.linear(vectors) / scale[:, None, None]


@pytest.mark.parametrize("norm", NORMS)
def test_shares_are_products_with_the_vectors_of_the_parts(norm):
    writing = writing_with(norm)
    vectors = slowly(norm, TAKEN[:, :, None] * MATRIX.T)
    neurons = torch.einsum("rd,rwd->rw", GRADIENT, vectors)
    torch.testing.assert_close(writing.neurons(GRADIENT), neurons)
    torch.testing.assert_close(writing.entries(GRADIENT), neurons)
    heads = neurons.view(ROWS, HEADS, -1).sum(2)
    torch.testing.assert_close(writing.heads(GRADIENT), heads)


@pytest.mark.parametrize("norm", NORMS)
def test_offsets_and_parts_are_the_whole_update(norm):
    writing = writing_with(norm)
    offsets = writing.offsets(GRADIENT)
    expected = {"bias", "carry"} | (
        {"norm offset"} if norm in ("LayerNorm", "projection") else set()
    )
    assert offsets.keys() == expected
    bias = slowly(norm, BIAS.expand(ROWS, 1, D_MODEL))[:, 0]
    torch.testing.assert_close(offsets["bias"], (GRADIENT * bias).sum(1))
    rest = writing.rest(GRADIENT, writing.heads(GRADIENT))
    assert rest.abs().max() < 1e-12


def test_what_the_parts_miss_is_the_rest():
    whole = writing_with("none")
    writing = writing_with("none", update=whole.update + 1.0)
    rest = writing.rest(GRADIENT, writing.neurons(GRADIENT))
    torch.testing.assert_close(rest, GRADIENT.sum(1))


def attended(**changes):
    values = {
        "values": VALUES,
        "bias": VALUE_BIAS,
        "weights": lambda rows: WEIGHTS[rows],
        "n_rows": ROWS,
        "n_heads": HEADS,
    }
    return Attended(**values | changes)


@pytest.mark.parametrize("gate", [None, seeded(ROWS, HEADS, WIDTH // HEADS, seed=9)])
def test_sources_are_weights_times_values_of_the_heads_group(gate):
    read = attended(gate=gate)
    pulled = seeded(ROWS, HEADS, WIDTH // HEADS, seed=10)
    shares = read.shares(pulled)
    for row in range(ROWS):
        for head in range(HEADS):
            for token in range(TOKENS):
                value = VALUES[head // 2, token] - VALUE_BIAS[head // 2]
                factor = 1.0 if gate is None else gate[row, head]
                expected = WEIGHTS[row, head, token] * (
                    pulled[row, head] @ (factor * value)
                )
                torch.testing.assert_close(shares[row, head, token], expected)


def test_sources_and_the_bias_are_their_head():
    whole = attended().read()
    writing = writing_with(
        "RMSNorm", taken=whole.flatten(1), attended=attended(), carried=None
    )
    sources = writing.sources(GRADIENT)
    pulled = writing.pull(GRADIENT).unflatten(1, (HEADS, -1))
    bias = (pulled * VALUE_BIAS.repeat_interleave(2, 0)).sum(2)
    torch.testing.assert_close(sources.sum(2) + bias, writing.heads(GRADIENT))


def test_memory_changes_nothing(monkeypatch):
    pulled = seeded(ROWS, HEADS, WIDTH // HEADS, seed=10)
    whole, read = attended().shares(pulled), attended().read()
    asked = []

    def weights(rows):
        asked.append(rows)
        return WEIGHTS[rows]

    monkeypatch.setattr("iglens.inside.attended.MEMORY_BUDGET", 1)
    assert torch.equal(attended(weights=weights).shares(pulled), whole)
    assert torch.equal(attended(weights=weights).read(), read)
    assert asked == [slice(i, i + 1) for i in range(ROWS)] * 2


@pytest.mark.parametrize("norm", NORMS)
def test_experts_are_the_slots_and_the_rest_are_others(norm):
    slots, form = seeded(2, ROWS, D_MODEL), NORMS[norm]
    given = slots.sum(0) + BIAS
    frozen = None if form is None else FrozenNorm.at(form, given)
    made = given if form is None else form(given)
    mixture = Mixture(
        update=0.6 * made,
        ids=torch.tensor([[0, 3]] * ROWS),
        weights=seeded(ROWS, 2),
        outputs=lambda slot, rows: slots[slot][rows],
        norm=frozen,
        scale=0.6,
    )
    shares = mixture.experts(GRADIENT)
    each = slots if frozen is None else form.linear(slots) / frozen.scales[:, None]
    torch.testing.assert_close(shares, 0.6 * torch.einsum("rd,srd->rs", GRADIENT, each))
    left = mixture.update - 0.6 * each.sum(0)
    torch.testing.assert_close(
        mixture.others(GRADIENT, shares), (GRADIENT * left).sum(1)
    )


def test_what_a_part_does_not_have_is_refused_with_the_reason():
    writing = writing_with(
        "none",
        n_heads=None,
        heads_reason="it is no attention",
        has_neurons=False,
        neurons_reason="it mixes tokens",
    )
    for method, reason in [
        (writing.heads, "it is no attention"),
        (writing.sources, "it is no attention"),
        (writing.neurons, "it mixes tokens"),
    ]:
        with pytest.raises(ArgumentError, match=reason):
            method(GRADIENT)
    with pytest.raises(ArgumentError, match="not asked for"):
        writing_with("none").sources(GRADIENT)


def test_shares_are_linear_in_the_gradient():
    writing, other = writing_with("LayerNorm"), seeded(ROWS, D_MODEL, seed=11)
    torch.testing.assert_close(
        writing.heads(2 * GRADIENT - other),
        2 * writing.heads(GRADIENT) - writing.heads(other),
    )


def test_heads_in_another_order_have_the_same_shares():
    order = torch.tensor([2, 0, 3, 1])
    columns = torch.arange(WIDTH).view(HEADS, -1)[order].flatten()
    writing = writing_with("RMSNorm")
    moved = writing_with(
        "RMSNorm",
        taken=TAKEN[:, columns],
        transposed=lambda vectors: vectors @ MATRIX[:, columns],
    )
    torch.testing.assert_close(moved.heads(GRADIENT), writing.heads(GRADIENT)[:, order])
