"""Who gained, who lost, and what flowed between tokens along a segment."""

import json
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from toys import (
    NORMS,
    POSTS,
    Head,
    LargestTensor,
    make_head,
    make_states,
    make_trace,
    normal,
    token,
)

from iglens.attribution import attribute, exchange, flows
from iglens.attribution.rivals import rivals
from iglens.errors import ArgumentError, FidelityError, NonFiniteError
from iglens.readout.lens import AffineLens
from iglens.records import ENTROPY

DOUBLE = torch.float64
LAYERS = [1, 2, 3, 4]


def softmaxed(head, states):
    return oracle.logits(head, states).softmax(-1)


def brute_flows(head, start, end, pieces=8, n_nodes=24):
    """`F[v, y]`: Gauss-Legendre on equal pieces, every pair of tokens, reverse mode."""
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    total = 0.0
    for piece in range(pieces):
        for node, weight in zip(nodes, weights, strict=True):
            t = (piece + (node + 1) / 2) / pieces
            at, step = start + t * (end - start), end - start
            z, dz = torch.func.jvp(lambda h: oracle.logits(head, h), (at,), (step,))
            p = z.softmax(-1)
            pairs = p[:, None] * p[None, :] * (dz[None, :] - dz[:, None])
            total = total + weight / 2 / pieces * pairs
    return total.numpy()


def listed(ids, amounts, size):
    """A list of tokens and amounts as one number per token."""
    dense = np.zeros(size)
    dense[ids[ids >= 0]] = amounts[ids >= 0]
    return dense


def all_flows(found, row, segment, size):
    """What every token sent, when every token is listed."""
    cell = (row, segment)
    sent = listed(found.sender_ids[cell], found.sent[cell], size)
    return sent + listed(found.receiver_ids[cell], found.received[cell], size)


@pytest.mark.parametrize("budget", [1, 2**26])
@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("norm", NORMS)
def test_gains_and_losses_are_the_extremes_of_the_differences(norm, post, budget):
    head = make_head(norm=norm, post=post, dtype=DOUBLE)
    trace = make_trace(head)
    found = flows(trace, token(3), top=4, exchange_layers=[], memory_budget=budget)
    change = softmaxed(head, trace.states).diff(dim=0)
    for segment, row in np.ndindex(4, 3):
        moved, cell = change[segment, row].numpy(), (row, segment)
        for sign, ids, amounts in (
            (1, found.gain_ids[cell], found.gains[cell]),
            (-1, found.loss_ids[cell], found.losses[cell]),
        ):
            first = np.argsort(-sign * moved, kind="stable")[:4]
            first = first[sign * moved[first] > 0]
            assert ids[ids >= 0].tolist() == first.tolist()
            np.testing.assert_allclose(amounts[ids >= 0], moved[first], atol=1e-13)
            assert (amounts[ids < 0] == 0).all()
    assert (found.gain_ids[..., 0] >= 0).all()
    np.testing.assert_allclose(found.mass, 1.0, atol=1e-13)
    assert np.abs(found.vocabulary_sum).max() < 1e-13
    assert (found.nodes == 0).all()
    assert np.isnan(found.others).all()
    assert not found.integrated.any()


def test_levels_and_credits_are_those_of_the_attribution():
    trace = make_trace()
    targets = [token(3), token(4, 96)]
    found = flows(trace, targets, exchange_layers=[])
    expected = attribute(trace, targets)
    np.testing.assert_array_equal(found.levels, expected.levels)
    np.testing.assert_array_equal(found.credits, expected.credits)
    np.testing.assert_array_equal(found.subject.fidelity, expected.fidelity)
    assert found.subject.targets == expected.targets
    assert found.subject.segments == expected.segments
    np.testing.assert_array_equal(found.subject.positions, expected.positions)
    assert found.subject.readout == expected.readout


def test_the_mass_notices_a_wrong_normaliser():
    head = make_head(dtype=DOUBLE)
    trace = make_trace(head)
    right = oracle.logits(head, trace.states).logsumexp(-1)
    assert (
        rivals(head.readout, trace.states, right, 2, 2**20).mass - 1
    ).abs().max() < (1e-12)
    wrong = right.clone()
    wrong[2, 1] += 1e-3
    mass = rivals(head.readout, trace.states, wrong, 2, 2**20).mass
    assert (mass - 1).abs().argmax() == 2 * 3 + 1
    assert float((mass - 1).abs().max()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("norm", NORMS)
def test_flows_are_the_integral_of_every_pair(norm, post):
    head = make_head(norm=norm, post=post, dtype=DOUBLE)
    trace = make_trace(head, rows=1)
    found = flows(trace, [token(3), token(90)], top=97, exchange_layers=LAYERS)
    for segment in range(4):
        expected = brute_flows(
            head, trace.states[segment, 0], trace.states[segment + 1, 0]
        )
        for row, y in ((0, 3), (1, 90)):
            got = all_flows(found, row, segment, 97)
            np.testing.assert_allclose(got, expected[:, y], atol=1e-8)
    assert np.abs(found.completeness).max() < 1e-15
    assert found.residual.max() < found.tolerance
    assert found.disagreement.max() < found.tolerance
    assert np.abs(found.drift).max() < 1e-14
    np.testing.assert_allclose(found.others, 0.0, atol=1e-15)


def test_flows_add_up_to_the_credit_whatever_is_listed():
    trace = make_trace(make_head(spread=3.0))
    credits = attribute(trace, token(3)).credits
    for top in (1, 5, 200):
        found = flows(trace, token(3), top=top, exchange_layers=LAYERS)
        total = found.sent.sum(2) + found.received.sum(2) + found.others
        np.testing.assert_allclose(total, credits, atol=1e-15)
        assert found.integrated.all()


@pytest.mark.parametrize(("tolerance", "apart"), [(0.1, 1e-15), (1e-8, 1e-8)])
def test_a_flow_is_the_other_s_flow_backwards(tolerance, apart):
    """On the same nodes to the last digit, what was closed included."""
    head = make_head(vocab=11, d_model=5, dtype=DOUBLE, spread=2.0)
    trace = make_trace(head, rows=1)
    given = {"exchange_layers": LAYERS, "tolerance": tolerance}
    found = flows(trace, [token(v) for v in range(11)], top=11, **given)
    if tolerance == 0.1:
        assert (found.nodes == 17).all()
        assert found.residual.max() > 1e-8
    for segment in range(4):
        table = np.stack([all_flows(found, r, segment, 11) for r in range(11)])
        assert np.abs(table).max() > 1e-3
        np.testing.assert_allclose(table, -table.T, atol=apart)


def test_a_flow_between_sets_is_the_sum_over_their_tokens():
    head = make_head(dtype=DOUBLE)
    trace = make_trace(head, rows=1)
    group = [3, 50, 96]
    targets = [token(*group), *(token(y) for y in group)]
    found = flows(trace, targets, top=97, exchange_layers=LAYERS, tolerance=1e-8)
    for segment in range(4):
        whole, *single = (all_flows(found, row, segment, 97) for row in range(4))
        expected = sum(single)
        assert np.abs(whole[group]).max() == 0
        expected[group] = 0  # what they trade with each other
        np.testing.assert_allclose(whole, expected, atol=1e-9)


def permuted(head, order):
    return head.but(unembed=head.unembed[order], bias=head.bias[order])


@given(order=st.permutations(range(11)), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=15)
def test_the_order_of_the_vocabulary_changes_nothing(order, seed):
    head = make_head(vocab=11, d_model=5, dtype=DOUBLE, seed=seed)
    states = make_states(3, 1, 5, dtype=DOUBLE, seed=seed)
    plain = flows(make_trace(head, states=states), token(order[0]), top=11)
    moved = flows(make_trace(permuted(head, order), states=states), token(0), top=11)
    new = {old: place for place, old in enumerate(order)}
    for segment in range(2):
        for ids, amounts in (("gain_ids", "gains"), ("loss_ids", "losses")):
            a, b = (getattr(f, ids)[0, segment] for f in (plain, moved))
            assert [new[i] for i in a.tolist() if i >= 0] == b[b >= 0].tolist()
            np.testing.assert_allclose(
                getattr(plain, amounts), getattr(moved, amounts), atol=1e-13
            )
        if plain.integrated[0, segment]:
            a, b = (all_flows(f, 0, segment, 11) for f in (plain, moved))
            np.testing.assert_allclose(b, a[list(order)], atol=1e-12)
    np.testing.assert_array_equal(plain.integrated, moved.integrated)


def test_a_constant_on_all_logits_changes_nothing():
    head = make_head(dtype=DOUBLE)
    lifted = head.but(unembed=head.unembed + 3 * normal(12, seed=9))
    plain, other = (
        flows(make_trace(h), token(3), top=97, exchange_layers=LAYERS)
        for h in (head, lifted)
    )
    np.testing.assert_allclose(plain.gains, other.gains, atol=1e-12)
    np.testing.assert_allclose(plain.sent, other.sent, atol=1e-10)
    np.testing.assert_array_equal(plain.sender_ids, other.sender_ids)


@pytest.mark.parametrize("tolerance", [0.1, 1e-8])
def test_a_token_split_in_two_sends_half_and_half(tolerance):
    """Also of what the rule missed and closure spread."""
    head = make_head(vocab=20, spread=3.0, dtype=DOUBLE)
    less = head.bias.clone()
    less[7] -= np.log(2)
    split = head.but(
        unembed=torch.cat([head.unembed, head.unembed[[7]]]),
        bias=torch.cat([less, less[[7]]]),
    )
    states = make_states(5, 2, 12, dtype=DOUBLE)
    plain, halved = (
        flows(
            make_trace(h, states=states),
            token(3),
            top=21,
            exchange_layers=LAYERS,
            tolerance=tolerance,
        )
        for h in (head, split)
    )
    if tolerance == 0.1:
        assert plain.residual[0].max() > 1e-5
    for segment in range(4):
        a = all_flows(plain, 0, segment, 20)
        b = all_flows(halved, 0, segment, 21)
        np.testing.assert_allclose(b[:7], a[:7], atol=1e-12)
        np.testing.assert_allclose(b[[7, 20]], a[7] / 2, atol=1e-12)


def crossing(place, slope):
    """A head of two tokens and a segment on which one overtakes the other there."""
    head = Head(lambda h: h, torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=DOUBLE))
    ends = [[-slope * place, 0.0], [slope * (1 - place), 0.0]]
    return head, torch.tensor(ends, dtype=DOUBLE)[:, None]


@pytest.mark.parametrize("place", [0.5, 0.1, 0.3141592653589793, 0.9999])
@pytest.mark.parametrize("slope", [1.0, 100.0, 1e4, 1e6])
def test_what_moves_between_all_nodes_is_found(place, slope):
    head, states = crossing(place, slope)
    trace = make_trace(head, states=states)
    found = flows(trace, token(0), exchange_layers=[1])
    assert found.integrated.all()
    assert found.sender_ids[0, 0].tolist() == [1, -1]
    np.testing.assert_allclose(found.sent[0, 0, 0], found.credits[0, 0], atol=1e-15)
    assert found.residual.max() < 1e-5
    if slope >= 1e4:
        assert found.nodes[0, 0] > 100
    if slope == 1:
        assert found.nodes[0, 0] == 17


def test_rules_that_agree_on_nothing_are_caught_by_the_change():
    """A step between two nodes: both rules give zero, and agree."""
    head, states = crossing(float(exchange.NODES[6:8].mean()), 1e5)
    target = torch.tensor([True, False])
    line = exchange._Line(
        head.readout, states[0, 0], states[1, 0] - states[0, 0], target, 2**20
    )
    whole = line.piece(0.0, 1.0)
    assert whole.disagreement < 1e-12
    assert whole.flow.abs().max() < 1e-12
    assert not whole.good(1e-5, 1.0)
    found = flows(make_trace(head, states=states), token(0), exchange_layers=[1])
    np.testing.assert_allclose(found.sent[0, 0, 0], 1.0, atol=1e-12)
    assert found.disagreement[0, 0] < 1e-5


@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_sharp_segments_take_more_nodes_and_come_out_right(spread):
    head = make_head(vocab=31, spread=spread, dtype=DOUBLE)
    trace = make_trace(head, rows=1)
    found = flows(trace, token(3), top=31, exchange_layers=LAYERS, tolerance=1e-7)
    for segment in (0, 3):
        ends = trace.states[segment, 0], trace.states[segment + 1, 0]
        expected = brute_flows(head, *ends, pieces=40, n_nodes=12)[:, 3]
        np.testing.assert_allclose(
            all_flows(found, 0, segment, 31), expected, atol=1e-7
        )
    assert (found.nodes.max() > 17) == (spread == 30.0)


def test_single_precision_is_close_to_the_truth_and_certified():
    head = make_head(vocab=300, spread=2.0)
    trace = make_trace(head, rows=1)
    found = flows(trace, token(3), top=300, exchange_layers=LAYERS)
    precise = make_trace(
        head.but(unembed=head.unembed.double(), bias=head.bias.double()),
        states=trace.states.double(),
    )
    exact = flows(precise, token(3), top=300, exchange_layers=LAYERS)
    for segment in range(4):
        np.testing.assert_allclose(
            all_flows(found, 0, segment, 300),
            all_flows(exact, 0, segment, 300),
            atol=1e-6,
        )
    assert np.abs(found.mass - 1).max() < 1e-5
    assert np.abs(found.drift).max() < 1e-6
    assert np.abs(found.completeness).max() < 1e-15


def test_an_integral_that_does_not_come_out_is_withheld_and_flagged():
    trace = make_trace(make_head(vocab=31))
    found = flows(trace, token(3), exchange_layers=[2], tolerance=1e-12)
    assert not found.integrated.any()
    assert (found.sender_ids == -1).all()
    assert np.isnan(found.sent).all()
    assert {(f.row, f.point, f.kind) for f in found.subject.flags} == {
        (row, 2, "uncertified") for row in range(3)
    }
    assert "still misses a change by" in found.subject.flags[0].detail
    assert (found.nodes[:, 1] > 17).all()
    assert found.nodes.max() < 2 * exchange.MAX_NODES
    assert (found.residual[:, 1] < 1e-5).all()
    assert np.isnan(found.completeness).all()
    assert flows(trace, token(3), exchange_layers=[2]).subject.flags == ()


def test_a_jump_that_no_piece_resolves_is_withheld(monkeypatch):
    """Rules that agree, on nothing: what was missed decides."""
    monkeypatch.setattr(exchange, "MAX_NODES", 200)
    head, states = crossing(0.3, 1e9)
    found = flows(make_trace(head, states=states), token(0), exchange_layers=[1])
    assert found.disagreement[0, 0] == 0
    assert found.residual[0, 0] == 1
    assert np.isnan(found.others[0, 0])
    assert found.subject.flags[0].kind == "uncertified"


def test_a_segment_that_does_not_move_exchanges_nothing():
    states = make_states(4, 2, 12, dtype=DOUBLE)
    states[2] = states[1]
    found = flows(
        make_trace(make_head(dtype=DOUBLE), states=states),
        token(3),
        exchange_layers=[1, 2, 3],
    )
    assert (found.gain_ids[:, 1] == -1).all()
    assert (found.gains[:, 1] == 0).all()
    assert (found.losses[:, 1] == 0).all()
    assert (found.sent[:, 1] == 0).all()
    assert (found.others[:, 1] == 0).all()
    assert (found.gain_ids[:, 0] >= 0).all()


def test_the_largest_change_is_exchanged_unless_layers_are_named():
    trace = make_trace()
    found = flows(trace, token(3))
    assert found.integrated.sum(1).tolist() == [1, 1, 1]
    np.testing.assert_array_equal(
        found.integrated.argmax(1), np.abs(found.credits).argmax(1)
    )
    named = flows(trace, token(3), exchange_layers=[4, 2])
    assert named.integrated.tolist() == [[False, True, False, True]] * 3
    coarse = flows(trace, token(3), layers=[2], exchange_layers=[2, 4])
    assert coarse.integrated.all()
    np.testing.assert_allclose(coarse.completeness, 0.0, atol=1e-15)


def test_a_lens_and_a_baseline_are_part_of_the_path():
    head = make_head(dtype=DOUBLE)
    lens = AffineLens(
        "affine", 4, (0, 1, 2, 3), normal(4, 12, 12, seed=5) / 6, normal(4, 12, seed=6)
    )
    trace = make_trace(head, rows=2)
    given = {"lens": lens, "baseline": "mean"}
    found = flows(trace, token(3), top=97, exchange_layers=[0, 3], **given)
    expected = attribute(trace, token(3), **given)
    np.testing.assert_allclose(found.levels, expected.levels, atol=1e-14)
    assert found.subject.lens == "affine"
    assert found.subject.baseline_kind == "mean"
    assert found.subject.layers == (0, 1, 2, 3, 4)
    start, end = (
        trace.states[k, 1] + trace.states[k, 1] @ lens.weight[k].T + lens.bias[k]
        for k in (2, 3)
    )
    np.testing.assert_allclose(
        all_flows(found, 1, 3, 97), brute_flows(head, start, end)[:, 3], atol=1e-8
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": token(3).versus(token(4))}, "a contrast; this takes tokens"),
        ({"targets": ENTROPY}, "a entropy|an entropy|entropy"),
        ({"top": 0}, "`top` is 0"),
        ({"exchange_layers": [9]}, r"names \[9\].*\[1, 2, 3, 4\]"),
        ({"layers": [7]}, r"\[7\]"),
    ],
)
def test_what_does_not_fit_is_refused(changes, said):
    with pytest.raises(ArgumentError, match=said):
        flows(make_trace(), **({"targets": token(3)} | changes))


def test_states_that_are_not_the_model_s_are_refused():
    trace = make_trace()
    moved = trace.with_states(trace.states, trace.logits.roll(1, 1))
    with pytest.raises(FidelityError):
        flows(moved, token(3))
    odd = trace.states.clone()
    odd[2, 1] = torch.nan
    with pytest.raises(NonFiniteError):
        flows(trace.with_states(odd, trace.logits), token(3))


def test_logits_of_no_distribution_have_no_flows():
    with pytest.raises(ArgumentError, match="no distribution"):
        flows(replace(make_trace(), measure="logit"), token(3))


def test_a_state_that_is_not_finite_spoils_its_neighbours_only():
    trace = make_trace()
    odd = trace.states.clone()
    odd[2, 1] = torch.nan
    found = flows(
        trace.with_states(odd, trace.logits),
        token(3),
        exchange_layers=LAYERS,
        strict=False,
    )
    plain = flows(trace, token(3), exchange_layers=LAYERS)
    assert [(f.row, f.point) for f in found.subject.flags] == [(1, 2)]
    spoilt = np.zeros((3, 4), bool)
    spoilt[1, 1:3] = True
    np.testing.assert_array_equal(np.isnan(found.credits), spoilt)
    np.testing.assert_array_equal(~found.integrated, spoilt)
    assert (found.gain_ids[spoilt] == -1).all()
    np.testing.assert_array_equal(np.isnan(found.gains).any(2), spoilt)
    np.testing.assert_allclose(found.gains[~spoilt], plain.gains[~spoilt], atol=1e-6)


def test_rivals_hold_no_row_of_the_vocabulary():
    head = make_head(vocab=20_000, d_model=16)
    trace = make_trace(head, rows=4)
    with LargestTensor() as largest:
        flows(trace, token(3), exchange_layers=[], memory_budget=2**20)
    assert largest.bytes <= 2**20, largest.made_by


def test_the_json_form_has_every_number_and_no_nan():
    found = flows(make_trace(), [token(3), token(4)], top=2)
    document = found.to_json()
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text) == document
    assert document["schema"] == "iglens.flow/1"
    assert document["unit"] == "probability"
    assert document["credits"] == found.credits.tolist()
    first = document["gains"][0][0][0]
    assert first == {
        "id": int(found.gain_ids[0, 0, 0]),
        "text": f"<{found.gain_ids[0, 0, 0]}>",
        "change": found.gains[0, 0, 0],
    }
    known = found.integrated[0].argmax()
    assert document["others"][0][known] == found.others[0, known]
    assert [x is None for x in document["others"][0]] == (~found.integrated[0]).tolist()
    assert document["sent"][0][(known + 1) % 4] == []


def test_the_table_adds_up_to_the_credit():
    found = flows(make_trace(), [token(3), token(4)], top=2, exchange_layers=[2, 4])
    table = found.to_arrow().to_pandas()
    flow = table[table["kind"].str.startswith("flow")]
    totals = flow.groupby(["row", "layer"])["change"].sum()
    np.testing.assert_allclose(totals, found.credits[:, [1, 3]].ravel(), atol=1e-14)
    gains = table[table["kind"] == "gain"]
    assert gains["token_id"].notna().all()
    assert (gains["change"] > 0).all()
    assert table[table["kind"] == "flow of others"]["token"].isna().all()
    named = gains.iloc[0]
    assert named["token"] == f"<{int(named['token_id'])}>"


def test_the_sentences_name_who_gained_and_lost():
    head = make_head(vocab=6, d_model=4, dtype=DOUBLE)
    trace = make_trace(head, rows=1)
    found = flows(trace, token(3), top=2)
    text = str(found)
    assert text.startswith(f"'<3>' at 1: {found.levels[0, -1]:.2f}")
    best = int(np.abs(found.credits[0]).argmax())
    gained = f"'<{found.gain_ids[0, best, 0]}>' {found.gains[0, best, 0]:+.3f}"
    lost = f"'<{found.loss_ids[0, best, 0]}>' {found.losses[0, best, 0]:+.3f}"
    (line,) = [x for x in text.splitlines() if f"layers {best} and {best + 1}:" in x]
    assert f"gained {gained}" in line
    assert f"lost {lost}" in line
    assert f"others {found.others[0, best]:+.3f}" in text
    assert "gains and losses cancel within" in text
    warned = replace(found, subject=replace(found.subject, warnings=("Beware.",)))
    assert str(warned).endswith("Warning: Beware.")


def test_the_rules_are_those_of_gauss_and_kronrod():
    gauss, weights = np.polynomial.legendre.leggauss(7)
    np.testing.assert_allclose(exchange.NODES[1::2], (gauss + 1) / 2, atol=1e-15)
    np.testing.assert_allclose(exchange.GAUSS[1::2], weights / 2, atol=1e-15)
    assert (exchange.GAUSS[::2] == 0).all()
    for power in range(23):  # exact up to degree 22
        integral = float((exchange.KRONROD * exchange.NODES**power).sum())
        assert integral == pytest.approx(1 / (power + 1), rel=1e-13)


@pytest.mark.embedded
def test_the_mass_of_paris_comes_from_its_rivals(embedded):
    ids = embedded.encode("The capital of France is")
    trace = embedded.trace(ids, [len(ids)])
    found = flows(
        trace, embedded.target(" Paris", ids), top=3, exchange_layers=[29, 30]
    )
    names = {
        name: [found.vocabulary[i] for i in getattr(found, name)[0, -1].tolist()]
        for name in ("gain_ids", "loss_ids", "sender_ids")
    }
    assert names["gain_ids"][0] == " Paris"
    assert set(names["loss_ids"][:2]) == {" capital", " the"}
    assert set(names["sender_ids"][:2]) == {" capital", " the"}
    assert found.gains[0, -1, 0] == pytest.approx(0.7025, abs=2e-3)
    assert np.abs(found.vocabulary_sum).max() < 1e-5
    assert found.integrated[0, -2:].all()
    assert np.abs(found.completeness[0, -2:]).max() < 1e-12
