"""Parts of a segment: their shares are integrals, add up, and carry a certificate."""

import itertools
import math

import families
import hypothesis.strategies as st
import numpy as np
import oracle
import pytest
import torch
from dense_parts import shares
from hypothesis import given, settings
from toys import NORMS, POSTS, Head, LargestTensor, make_head, make_states, normal

from iglens import Decoder
from iglens.attribution.integral.averaged import averaged_gradient
from iglens.errors import ArgumentError, UnsupportedModelError
from iglens.readout import MEMORY_BUDGET, CalledReadout, LinearReadout
from iglens.records import UNITS

DOUBLE = torch.float64
KINDS = {"token": ([3], []), "set": ([3, 9], []), "contrast": ([3, 9], [96])}


def asked(n, ids, against=()):
    """One target for `n` segments, with an unused slot."""
    tokens = torch.tensor([[-1, *ids, *against]]).repeat(n, 1)
    slots = torch.arange(tokens.shape[1])
    chosen = (slots >= 1) & (slots <= len(ids))
    return tokens, chosen.repeat(n, 1), (slots > len(ids)).repeat(n, 1)


def average(readout, path, ids, against=(), unit="probability", **options):
    """Averaged gradients between neighbouring states of a path."""
    target = asked(len(path) - 1, ids, against)
    return averaged_gradient(readout, path[:-1], path[1:], *target, unit, **options)


def level_of(logits, ids, against, unit):
    """The level of a target, as a function of states."""

    def level(states):
        z = logits(states)
        value = oracle.level(z, ids, unit)
        return value - oracle.level(z, against, unit) if against else value

    return level


def by_force(level, path, edges=None):
    """Averaged gradients and changes, written out."""
    pairs = list(itertools.pairwise(path))
    with torch.no_grad():
        values = level(path.double())
    gradients = [oracle.average_gradient(level, a, b, edges) for a, b in pairs]
    return torch.stack(gradients), values.diff()


def called(head, **changes):
    """The same head behind a function."""
    return CalledReadout(
        **{
            "tail": head.readout.own_logits,
            "d_model": head.unembed.shape[1],
            "vocab_size": len(head.unembed),
            "dtype": head.unembed.dtype,
            "precision": head.unembed.dtype,
        }
        | changes
    )


def random_parts(steps, n, seed=0):
    """Parts of every step that add up to it, larger than the step itself."""
    parts = normal(len(steps), n, steps.shape[1], seed=seed) * steps.norm()
    return parts + (steps - parts.sum(1))[:, None] / n


# --- against brute force -----------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("norm", NORMS)
def test_averages_are_those_of_brute_force(norm, post, unit, kind):
    ids, against = KINDS[kind]
    head = make_head(norm=norm, post=post, dtype=DOUBLE)
    path = make_states(5, 1, 12, dtype=DOUBLE)[:, 0]
    level = level_of(lambda h: oracle.logits(head, h), ids, against, unit)
    gradients, changes = by_force(level, path)
    for readout in (head.readout, called(head)):
        found = average(readout, path, ids, against, unit)
        assert found.closed_form == (readout.kind == "explicit")
        np.testing.assert_allclose(found.change, changes, atol=1e-12)
        missed = (found.gradient - gradients).norm(dim=1) * found.step.norm(dim=1)
        assert missed.max() < 1e-9
        assert found.within(found.step.norm(dim=1), 1e-6).all()
        split = shares(found, random_parts(found.step, 7), changes)
        np.testing.assert_allclose(
            split.credits.sum(1) + split.remainder, changes, atol=1e-12
        )
        assert split.certificate.residual.max() < 1e-9
        assert split.remainder.abs().max() < 1e-12


def curved(h):
    """A norm that is no linear map over a scale."""
    return h / (1 + h.square().mean(-1, keepdim=True).sqrt()) + 0.1 * torch.sin(h)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("post", POSTS)
def test_any_other_norm_is_differentiated(post, unit):
    head = make_head(post=post, dtype=DOUBLE).but(norm=curved)
    path = make_states(4, 1, 12, dtype=DOUBLE)[:, 0]
    level = level_of(lambda h: oracle.logits(head, h), [3, 9], [96], unit)
    gradients, changes = by_force(level, path)
    found = average(head.readout, path, [3, 9], [96], unit)
    assert not found.closed_form
    missed = (found.gradient - gradients).norm(dim=1) * found.step.norm(dim=1)
    assert missed.max() < 1e-9
    np.testing.assert_allclose(found.change, changes, atol=1e-12)
    assert found.residual.abs().max() < 1e-9


@pytest.mark.parametrize("name", families.FAMILIES)
def test_real_heads_have_the_closed_form_and_the_brute_force_result(name):
    model = families.build(name)
    readout = Decoder(model).readout
    family, double = families.FAMILIES[name], families.build(name, DOUBLE)
    norm, head = (families.part(double, part) for part in (family.norm, family.head))
    path = families.states_by_hooks(model, name, families.some_ids())[:, 4]
    level = level_of(lambda h: family.post(head(norm(h))), [3], [], "log_probability")
    gradients, changes = by_force(level, path)
    for precision in (torch.float32, DOUBLE):
        given = readout.with_precision(precision)
        found = average(given, path, [3], unit="log_probability")
        assert found.closed_form
        assert found.within(found.step.norm(dim=1), 1e-6).all()
        missed = (found.gradient - gradients).norm(dim=1) * found.step.norm(dim=1)
        assert missed.max() < 1e-5  # most norms compute in float32 whatever comes
        np.testing.assert_allclose(found.change, changes, atol=1e-5)


@pytest.mark.slow
@pytest.mark.embedded
def test_all_segments_of_paris(embedded):
    ids = embedded.encode("The capital of France is")
    trace = embedded.trace(ids, [len(ids)])
    path, token = trace.states[:, 0], embedded.target(" Paris", ids).ids[0]
    model = embedded.model
    weight = model.lm_head.weight.detach().double()
    gain = model.model.norm.weight.detach().double()
    eps = model.model.norm.variance_epsilon

    def scaled(h):
        return gain * h * (h.square().mean(-1, keepdim=True) + eps).rsqrt()

    def level(h):
        return (scaled(h) @ weight.T).softmax(-1)[:, token]

    early, changes = by_force(level, path[:26], [0.0, 1.0])
    late, late_changes = by_force(level, path[25:])
    gradients = torch.cat([early, late]).detach()
    changes = torch.cat([changes, late_changes])
    exact = LinearReadout.plain(scaled, weight)
    given = trace.readout  # its norm computes in float32 whatever it is given
    precise = given.with_precision(DOUBLE)
    for readout, within in ((given, 1e-5), (precise, 1e-7), (exact, 1e-11)):
        found = average(readout, path, [token])
        assert found.closed_form
        assert not found.capped.any()
        size = found.step.norm(dim=1, keepdim=True)
        assert found.within(size[:, 0], 1e-6).all()
        missed = (found.gradient - gradients).norm(dim=1, keepdim=True)
        assert (missed * size).max() < 10 * within
        single = found.step * (found.gradient - gradients)
        assert single.abs().max() < within / 10
        parts = random_parts(found.step, 12) * size[:, :, None] / found.step.norm()
        split = shares(found, parts, changes)
        assert split.certificate.within(1e-6).all()
        np.testing.assert_allclose(
            split.credits.sum(1) + split.remainder, changes, atol=1e-12
        )
        expected = (parts @ gradients[:, :, None])[..., 0]
        assert (split.credits - expected).abs().max() < 10 * within


# --- where fixed rules fail --------------------------------------------------------


def test_confident_steps_survive():
    """Steps from 1e-9 to 0.999 within a fraction of the segment."""
    head = make_head(spread=30.0, dtype=DOUBLE, d_model=6, vocab=40)
    path = normal(16, 6, seed=8)
    probabilities = oracle.logits(head, path).softmax(-1)
    token = int(probabilities.amax(0).argmax())
    level = level_of(lambda h: oracle.logits(head, h), [token], [], "probability")
    gradients, changes = by_force(level, path, np.linspace(0, 1, 257).tolist())
    assert changes.abs().max() > 0.99
    fixed, _ = by_force(level, path, [0.0, 0.5, 1.0])
    assert ((fixed * path.diff(dim=0)).sum(1) - changes).abs().max() > 0.05
    found = average(head.readout, path, [token])
    assert found.within(found.step.norm(dim=1), 1e-6).all()
    assert found.residual.abs().max() < 1e-9
    missed = (found.gradient - gradients).norm(dim=1) * found.step.norm(dim=1)
    assert missed.max() < 1e-7


@pytest.mark.parametrize("norm", ["rms", "layer", "gemma"])
@pytest.mark.parametrize("start", [0.0, 1e-5, -1e-3])
def test_the_segment_that_leaves_zero_survives(norm, start):
    """And one that passes close to it, where the direction turns around."""
    head = make_head(norm=norm, dtype=DOUBLE)
    end = normal(12, seed=5)
    path = torch.stack([start * end + 1e-6 * abs(start) * normal(12, seed=6), 9 * end])
    level = level_of(lambda h: oracle.logits(head, h), [3], [], "log_probability")
    turn = -start / (9 - start)
    near = [turn + s * 2.0**-k for k in range(1, 45) for s in (-1, 1)]
    edges = sorted({0.0, 1.0, *(t for t in near if 0 < t < 1)})
    gradients, changes = by_force(level, path, edges)
    found = average(head.readout, path, [3], unit="log_probability")
    assert found.within(found.step.norm(dim=1), 1e-6).all()
    assert not found.capped.any()
    size = found.step.norm(dim=1)
    assert ((found.gradient - gradients).norm(dim=1) * size).max() < 1e-6
    np.testing.assert_allclose(found.change, changes, atol=1e-10)


def peak(k, centre):
    """A target that is probable at one place only, between two rivals.

    Along the first axis `p = 1 / (1 + 2 cosh(k (x - centre)))`; the second axis raises
    the target's logit. By symmetry the credit of a segment over the peak is almost 0.
    """
    unembed = torch.tensor([[0.0, 1.0], [k, 0.0], [-k, 0.0]], dtype=DOUBLE)
    bias = torch.tensor([0.0, -k * centre, k * centre], dtype=DOUBLE)
    return Head(lambda h: h, unembed, bias)


def share_of_the_peak(k, centre):
    """`int p (1 - p) dx`, with the peak resolved by a million points."""
    x = torch.linspace(-40, 40, 1_000_001, dtype=DOUBLE)
    p = 1 / (1 + 2 * torch.cosh(x))
    inside = (x / k + centre > 0) & (x / k + centre < 1)
    return float(torch.trapezoid(p * (1 - p) * inside, x) / k)


LINE = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=DOUBLE)
SIDEWAYS = torch.tensor([[[0.5, 1.0], [0.5, -1.0]]], dtype=DOUBLE)


def test_a_symmetric_rule_has_no_residual_and_wrong_parts_and_is_caught():
    head, true = peak(31.0, 0.5), share_of_the_peak(31.0, 0.5)
    level = level_of(lambda h: oracle.logits(head, h), [0], [], "probability")
    middle = oracle.gradient_credits(
        head, LINE[:, None], [0], "probability", [(0.5, 1)]
    )
    assert abs(float(middle)) < 1e-12  # the midpoint rule has no residual
    state = torch.tensor([[0.5, 0.0]], dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(level(state).sum(), state)
    assert abs(float(gradient[0, 1]) - true) > 5 * true  # and a part is far off
    once = average(head.readout, LINE, [0], max_nodes=15)
    split = shares(once, SIDEWAYS)
    assert once.capped.all()
    assert split.certificate.residual.max() < 1e-12
    assert not split.certificate.within(1e-6).any()
    assert split.certificate.parts > (split.credits[0, 0] - true).abs() > 1e-4
    found = average(head.readout, LINE, [0], sizes=torch.tensor([1.2]))
    split = shares(found, SIDEWAYS)
    assert split.certificate.within(1e-6).all()
    np.testing.assert_allclose(split.credits, [[true, -true]], atol=1e-9)


@pytest.mark.parametrize("centre", [0.3, 0.37, 0.61803, 0.95])
@pytest.mark.parametrize("generic", [False, True])
def test_what_happens_between_all_nodes_is_not_overlooked(centre, generic):
    """Both rules agree on nothing at all, and nothing is missing from the sum."""
    head, true = peak(2e4, centre), share_of_the_peak(2e4, centre)
    readout = called(head) if generic else head.readout
    found = average(readout, LINE, [0], tolerance=1e-9)
    assert not found.capped.any()
    np.testing.assert_allclose(
        shares(found, SIDEWAYS).credits, [[true, -true]], atol=1e-9
    )
    assert true > 1e-5


@pytest.mark.parametrize("unit", ["logit", "log_probability", "log_odds"])
def test_what_happens_on_both_sides_of_a_contrast_is_not_overlooked(unit):
    """Both sides turn at the same place: their difference does not change at all."""
    k, at = 2e4, 0.37
    rows = [[k, 0, 0], [-k, 0, 0], [0, 1, 0], [k, 0, 0], [-k, 0, 0], [0, 0, 1]]
    bias = torch.tensor([-k * at, k * at, 0.0] * 2, dtype=DOUBLE)
    head = Head(lambda h: h, torch.tensor(rows, dtype=DOUBLE), bias)
    path = torch.tensor([[0.0, 0, 0], [1, 0, 0]], dtype=DOUBLE)
    found = average(head.readout, path, [0, 1, 2], [3, 4, 5], unit, tolerance=1e-9)
    x = torch.linspace(-40, 40, 1_000_001, dtype=DOUBLE)
    true = float(torch.trapezoid(1 / (1 + 2 * torch.cosh(x)), x) / k)
    true *= 2 if unit == "log_odds" else 1
    assert not found.capped.any()
    if unit != "log_odds":
        np.testing.assert_allclose(found.gradient[0, 1:], [true, -true], atol=1e-9)
    assert found.gradient[0, 1] > true / 2


# --- axioms ------------------------------------------------------------------------


@st.composite
def questions(draw):
    """Any segment of any head."""
    head = make_head(
        norm=draw(st.sampled_from(NORMS)),
        post=draw(st.sampled_from(POSTS)),
        bias=draw(st.booleans()),
        vocab=draw(st.sampled_from([4, 53])),
        spread=draw(st.sampled_from([0.3, 1.0, 8.0])),
        dtype=DOUBLE,
        seed=draw(st.integers(0, 99)),
    )
    path = normal(2, 12, seed=draw(st.integers(0, 99))) * draw(
        st.sampled_from([1e-3, 1.0, 30.0])
    )
    ids, against = draw(st.sampled_from([([0], []), ([0, 2], []), ([2], [1, 0])]))
    return head, path, ids, against, draw(st.sampled_from(UNITS))


@settings(deadline=None, max_examples=40)
@given(asked_of=questions(), seed=st.integers(0, 99))
def test_shares_are_complete_linear_symmetric_and_nothing_for_nothing(asked_of, seed):
    head, path, ids, against, unit = asked_of
    found = average(head.readout, path, ids, against, unit)
    parts = random_parts(found.step, 4, seed)
    first, second = parts[:, :1], parts[:, 1:2]
    rest = found.step[:, None] - 2.5 * first - second
    nothing = torch.zeros_like(first)
    split = shares(
        found, torch.cat([first, first, 0.5 * first + second, nothing, rest], 1)
    )
    (credits,) = split.credits
    scale = float(found.change.abs() + found.gradient.norm() * parts.norm())
    np.testing.assert_allclose(
        credits.sum() + split.remainder, found.change, atol=1e-12 * max(scale, 1)
    )
    assert credits[0] == credits[1]
    assert credits[3] == 0
    alone = shares(found, torch.cat([first, second], 1))
    combined = 0.5 * alone.credits[0, 0] + alone.credits[0, 1]
    np.testing.assert_allclose(credits[2], combined, atol=1e-12 * max(scale, 1))
    assert split.certificate.residual <= 1e-6


@settings(deadline=None, max_examples=12)
@given(asked_of=questions(), cut=st.floats(0.05, 0.95))
def test_a_segment_is_its_pieces_and_its_reverse(asked_of, cut):
    head, path, ids, against, unit = asked_of
    middle = path[0] + cut * (path[1] - path[0])
    options = {"tolerance": 1e-9}
    whole = average(head.readout, path, ids, against, unit, **options)
    pieces = average(
        head.readout, torch.stack([path[0], middle, path[1]]), ids, against, unit,
        **options,
    )  # fmt: skip
    joined = cut * pieces.gradient[0] + (1 - cut) * pieces.gradient[1]
    back = average(head.readout, path.flip(0), ids, against, unit, **options)
    size = float(whole.step.norm())
    assert (joined - whole.gradient[0]).norm() * size < 1e-8
    assert (back.gradient - whole.gradient).norm() * size < 1e-8
    np.testing.assert_allclose(back.change, -whole.change, atol=1e-10)


def test_what_the_head_cannot_see_gets_nothing():
    head = make_head(norm="none", dtype=DOUBLE)
    unembed = head.unembed.clone()
    unembed[:, 4] = 0
    found = average(head.but(unembed=unembed).readout, normal(3, 12), [3])
    assert (found.gradient[:, 4] == 0).all()
    assert (found.gradient[:, 3] != 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_what_a_softmax_cannot_see_changes_nothing(norm):
    head, path = make_head(norm=norm, dtype=DOUBLE), normal(4, 12)
    found = average(head.readout, path, [3])
    shifted = head.but(unembed=head.unembed + normal(12, seed=9))
    np.testing.assert_allclose(
        average(shifted.readout, path, [3]).gradient, found.gradient, atol=1e-9
    )
    twins = head.but(
        unembed=torch.cat([head.unembed, head.unembed[[3]]]),
        bias=torch.cat([head.bias, head.bias[[3]]]),
    )
    twins.bias[[3, 97]] -= math.log(2)
    np.testing.assert_allclose(
        average(twins.readout, path, [3, 97]).gradient, found.gradient, atol=1e-9
    )


def test_targets_of_each_segment_are_its_own():
    head, path = make_head(dtype=DOUBLE), normal(4, 12)
    tokens = torch.tensor([[3, -1], [5, 9], [96, 7]])
    chosen = torch.tensor([[True, False], [True, True], [True, False]])
    against = torch.tensor([[False, False], [False, False], [False, True]])
    found = averaged_gradient(
        head.readout, path[:-1], path[1:], tokens, chosen, against, "log_probability"
    )
    for row, (ids, other) in enumerate([([3], []), ([5, 9], []), ([96], [7])]):
        alone = average(
            head.readout, path[row : row + 2], ids, other, "log_probability"
        )
        np.testing.assert_allclose(found.gradient[row], alone.gradient[0], atol=1e-12)


# --- numbers -----------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("spread", [1.0, 12.0])
def test_single_precision_reaches_the_tolerance(unit, spread):
    head = make_head(spread=spread, post="soft-cap" if spread > 1 else "identity")
    path = make_states(8, 1, 12)[:, 0]
    found = average(head.readout, path, [3], unit=unit)
    exact = average(head.readout.with_precision(DOUBLE), path, [3], unit=unit)
    size = found.step.norm(dim=1)
    assert found.within(size, 1e-6).all()
    missed = (found.gradient - exact.gradient).norm(dim=1) * size
    assert missed.max() < 3e-5 * spread
    split = shares(found, random_parts(found.step, 3), exact.change)
    np.testing.assert_allclose(
        split.credits.sum(1) + split.remainder, exact.change, atol=1e-11
    )
    rounded = (exact.change - found.change).abs()
    np.testing.assert_allclose(split.certificate.ends.abs(), rounded)
    assert rounded.max() < 1e-5 * spread


def test_weights_in_half_precision_are_read_as_they_are():
    head = make_head(dtype=torch.bfloat16)
    same = make_head(dtype=torch.bfloat16)
    wide = same.but(unembed=same.unembed.double(), bias=same.bias.double())
    path = make_states(4, 1, 12, dtype=torch.bfloat16)[:, 0]
    found = average(head.readout.with_precision(DOUBLE), path, [3])
    exact = average(wide.readout, path.double(), [3])
    np.testing.assert_allclose(found.gradient, exact.gradient, atol=1e-13)
    single = average(head.readout, path, [3])
    np.testing.assert_allclose(single.gradient, exact.gradient, atol=1e-6)


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("budget", [1, 20_000, 200_000])
def test_memory_budgets_change_nothing(budget, generic, post):
    head = make_head(vocab=131, post=post, dtype=DOUBLE)
    readout = called(head) if generic else head.readout
    path = make_states(6, 1, 12, dtype=DOUBLE)[:, 0]
    small = average(readout, path, [3], memory_budget=budget)
    large = average(readout, path, [3])
    np.testing.assert_allclose(small.gradient, large.gradient, atol=1e-13)
    np.testing.assert_allclose(small.difference, large.difference, atol=1e-13)
    np.testing.assert_array_equal(small.nodes, large.nodes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_outgrows_the_budget(dtype):
    head = make_head(vocab=10_000, d_model=8, dtype=dtype)
    path = make_states(17, 1, 8, dtype=dtype)[:, 0]
    budget = 2**20
    with LargestTensor() as largest:
        average(head.readout, path, [3], memory_budget=budget)
    assert largest.bytes <= budget // 2, largest.made_by
    with LargestTensor() as largest:
        average(head.readout, path, [3], memory_budget=MEMORY_BUDGET)
    assert largest.bytes > budget


def test_a_cap_on_nodes_is_kept_and_said():
    head = make_head(spread=30.0, dtype=DOUBLE)
    path = normal(9, 12)
    found = average(head.readout, path, [3], unit="log_probability", max_nodes=100)
    assert found.capped.any()
    assert found.nodes.max() <= 100 + 17
    split = shares(found, random_parts(found.step, 3))
    certificate = split.certificate
    assert (certificate.capped == found.capped).all()
    assert not certificate.within(1e-6)[found.capped].all()
    np.testing.assert_allclose(
        split.credits.sum(1) + split.remainder, found.change, atol=1e-9
    )


# --- certificates and edges --------------------------------------------------------


def test_a_certificate_says_what_closure_did():
    head, path = make_head(dtype=DOUBLE), normal(3, 12)
    found = average(head.readout, path, [3])
    parts = random_parts(found.step, 3)
    credits = found.change + torch.tensor([1e-3, -2e-3])
    certificate = shares(found, parts, credits).certificate
    np.testing.assert_allclose(certificate.ends, [1e-3, -2e-3], atol=1e-12)
    np.testing.assert_allclose(certificate.closed, [1e-3, -2e-3], atol=1e-9)
    open_, closed = shares(found, parts), shares(found, parts, credits)
    moved = (closed.credits - open_.credits).abs().amax(1)
    np.testing.assert_allclose(certificate.closed_part, moved, atol=1e-9)
    along = (parts * found.step[:, None]).sum(2) / found.step.square().sum(1)[:, None]
    expected = open_.credits + (credits - found.change)[:, None] * along
    np.testing.assert_allclose(closed.credits, expected, atol=1e-12)


def test_parts_of_parts_add_up():
    head, path = make_head(dtype=DOUBLE), normal(3, 12)
    found = average(head.readout, path, [3])
    credits = found.change + 1e-3
    coarse = random_parts(found.step, 2)
    inner = random_parts(coarse[:, 0], 5, seed=4)
    whole = shares(found, coarse, credits).credits
    fine = shares(found, torch.cat([inner, coarse[:, 1:]], 1), credits).credits
    np.testing.assert_allclose(fine[:, :5].sum(1), whole[:, 0], atol=1e-12)
    many = found.closed(credits)[:, None] @ inner.transpose(1, 2)
    np.testing.assert_allclose(many[:, 0], fine[:, :5], atol=1e-14)


def test_what_the_parts_lack_is_a_part_of_its_own():
    head, path = make_head(dtype=DOUBLE), normal(3, 12)
    found = average(head.readout, path, [3])
    parts = random_parts(found.step, 3)
    whole, short = shares(found, parts), shares(found, parts[:, :2])
    np.testing.assert_allclose(short.remainder, whole.credits[:, 2], atol=1e-12)
    np.testing.assert_allclose(short.credits, whole.credits[:, :2], atol=1e-15)


@pytest.mark.parametrize("generic", [False, True])
def test_parts_that_cancel_out_cancel_out(generic):
    """A step of zero has a gradient, and nothing to close along."""
    head, state = make_head(dtype=DOUBLE), normal(1, 12)
    readout = called(head) if generic else head.readout
    found = average(readout, state.repeat(2, 1), [3])
    part = normal(1, 1, 12, seed=7)
    split = shares(found, torch.cat([part, -part], 1))
    assert found.change == 0
    assert split.credits.sum() == 0
    assert split.credits.abs().min() > 0
    np.testing.assert_array_equal(split.certificate.closed, [0.0])


@pytest.mark.parametrize("generic", [False, True])
def test_what_is_not_finite_is_not_certified_and_does_not_take_forever(generic):
    head, path = make_head(dtype=DOUBLE), normal(4, 12)
    path[1, 3] = torch.nan
    readout = called(head) if generic else head.readout
    found = average(readout, path, [3])
    fine = found.within(found.step.norm(dim=1), 1e-6)
    assert fine.tolist() == [False, False, True]
    assert found.nodes[:2].max() < 40
    assert found.gradient[:2].isnan().any(1).all()
    assert found.gradient[2].isfinite().all()


def test_impossible_tokens_leave_the_others_alone():
    head, path = make_head(dtype=DOUBLE), normal(3, 12)
    bias = head.bias.clone()
    bias[10:] = -torch.inf
    found = average(head.but(bias=bias).readout, path, [3], unit="log_probability")
    few = head.but(unembed=head.unembed[:10], bias=head.bias[:10])
    expected = average(few.readout, path, [3], unit="log_probability")
    np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-12)


def test_no_segment_at_all_has_no_gradient():
    path = normal(1, 12)
    for readout in (make_head(dtype=DOUBLE).readout, called(make_head(dtype=DOUBLE))):
        found = average(readout, path, [3])
        assert found.gradient.shape == (0, 12)
        assert shares(found, torch.zeros(0, 2, 12)).credits.shape == (0, 2)


def test_a_segment_without_a_token_is_refused():
    head, path = make_head(dtype=DOUBLE), normal(2, 12)
    none = torch.zeros(1, 1, dtype=torch.bool)
    with pytest.raises(ArgumentError, match="at least one token"):
        averaged_gradient(
            head.readout, path[:1], path[1:], torch.tensor([[-1]]), none, none
        )


def test_a_head_without_derivatives_is_refused_with_the_way_out():
    head = make_head(dtype=DOUBLE)
    silent = called(head, tail=torch.no_grad()(head.readout.own_logits))
    with pytest.raises(UnsupportedModelError, match="Stay at layers or sublayers"):
        average(silent, normal(2, 12), [3])
    broken = head.but(norm=lambda h: torch.from_numpy(h.detach().numpy()) ** 3)
    with pytest.raises(UnsupportedModelError, match="no derivative"):
        average(broken.readout, normal(2, 12), [3])
