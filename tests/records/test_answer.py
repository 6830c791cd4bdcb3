"""A whole answer: both margins, the shares of the joint probability, words."""

import itertools
import math
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from factories import make_answer
from hypothesis import given, settings

from iglens.errors import ArgumentError
from iglens.records import Answer, Flag, Target
from iglens.records.answer import whole_answer
from iglens.records.joint import change, shares
from iglens.records.words import word_ranges

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2

FINITE = st.floats(-60, 0)


@st.composite
def tables(draw, tokens=5, points=5):
    shape = draw(st.tuples(st.integers(1, tokens), st.integers(2, points)))
    cells = draw(st.lists(FINITE, min_size=math.prod(shape), max_size=math.prod(shape)))
    return np.array(cells).reshape(shape)


def along_straight_logs(before, after):
    """Each factor's share of the product, along a path on which the logs are straight:
    the integral of `dP / dlog p_t` times the step of `log p_t`, by brute force."""
    found = np.zeros(len(before))
    pieces = np.linspace(0, 1, 65)
    for a, b in itertools.pairwise(pieces):
        for node, weight in zip(NODES, WEIGHTS, strict=True):
            t = a + (b - a) * node
            product = math.exp(sum(before + t * (after - before)))
            found += (b - a) * weight * product * (after - before)
    return found


def in_order(before, after):
    """Each factor's share when the first moves first."""
    p, q = np.exp(before), np.exp(after)
    n = len(p)
    return [math.prod(q[:t]) * (q[t] - p[t]) * math.prod(p[t + 1 :]) for t in range(n)]


@given(logs=tables())
@settings(deadline=None)
def test_both_margins_of_both_tables_are_exact(logs):
    for sharing in ("logarithmic", "product"):
        answer = Answer.of(make_answer(logs), sharing)
        joint = np.exp(logs.sum(0))
        np.testing.assert_allclose(answer.credits.sum(0), np.diff(joint), atol=1e-14)
        np.testing.assert_allclose(
            answer.token_credits.sum(), joint[-1] - joint[0], atol=1e-14
        )
        np.testing.assert_allclose(answer.joint_credits, np.diff(joint), atol=1e-14)
        np.testing.assert_allclose(
            answer.log_credits.sum(1), logs[:, -1] - logs[:, 0], atol=1e-12
        )
        np.testing.assert_allclose(
            answer.log_credits.sum(0), np.diff(logs.sum(0)), atol=1e-12
        )
        worst = {k: np.abs(v).max() for k, v in answer.completeness.items()}
        assert max(worst.values()) < 1e-11
        assert max(worst["layers"], worst["total"]) < 1e-14


@given(logs=tables(points=3))
@settings(deadline=None, max_examples=25)
def test_shares_are_the_integral_along_straight_logarithms(logs):
    found = Answer.of(make_answer(logs)).credits
    for step in range(found.shape[1]):
        expected = along_straight_logs(logs[:, step], logs[:, step + 1])
        np.testing.assert_allclose(found[:, step], expected, rtol=1e-9, atol=1e-15)


@given(logs=tables())
@settings(deadline=None)
def test_the_product_path_is_its_definition(logs):
    found = Answer.of(make_answer(logs), "product").credits
    for step in range(found.shape[1]):
        expected = in_order(logs[:, step], logs[:, step + 1])
        np.testing.assert_allclose(found[:, step], expected, rtol=1e-9, atol=1e-18)


@given(logs=tables(), source=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_logarithmic_shares_do_not_depend_on_the_order_of_the_tokens(logs, source):
    order = list(range(len(logs)))
    source.shuffle(order)
    found, shuffled = (
        shares(x[:, :-1], x[:, 1:], "logarithmic") for x in (logs, logs[order])
    )
    np.testing.assert_allclose(shuffled, found[order], rtol=1e-11, atol=1e-300)


def test_the_product_path_leaves_nearly_everything_to_the_last_token():
    logs = np.array([[-40.0, -0.1], [-30.0, -0.1], [-20.0, -0.1]])
    alike, ordered = (
        Answer.of(make_answer(logs), sharing).credits[:, 0]
        for sharing in ("logarithmic", "product")
    )
    whole = math.exp(-0.3)
    np.testing.assert_allclose(alike / whole, np.array([39.9, 29.9, 19.9]) / 89.7)
    assert ordered[2] / whole > 1 - 1e-8
    assert ordered[0] / whole < 1e-21


@pytest.mark.parametrize("size", [-690.0, -0.5])
def test_tiny_joint_probabilities_keep_every_digit(size):
    logs = np.full((3, 2), size / 3)
    logs[:, 1] += [1e-9, 2e-9, -1e-9]
    answer = Answer.of(make_answer(logs))
    total = math.exp(size)
    expected = total * np.array([1e-9, 2e-9, -1e-9])
    np.testing.assert_allclose(answer.credits[:, 0], expected, rtol=1e-4)
    np.testing.assert_allclose(answer.joint_credits, total * 2e-9, rtol=1e-4)


def test_equal_neighbours_get_nothing():
    answer = Answer.of(make_answer([[-1.0, -1.0, -2.0], [-3.0, -3.0, -2.0]]))
    assert (answer.credits[:, 0] == 0).all()
    np.testing.assert_allclose(  # the product stays, the tokens trade
        answer.credits[:, 1], np.exp(-4.0) * np.array([-1.0, 1.0])
    )
    assert answer.joint_credits.tolist() == [0.0, 0.0]


@given(logs=tables())
@settings(deadline=None)
def test_every_unit_gives_the_same_table(logs):
    logs = np.minimum(logs, -1e-3)
    expected = Answer.of(make_answer(logs))
    for unit in ("probability", "log_odds"):
        found = Answer.of(make_answer(logs, unit=unit))
        np.testing.assert_allclose(found.log_levels, expected.log_levels, atol=1e-12)
        np.testing.assert_allclose(found.credits, expected.credits, atol=1e-13)


def test_what_probability_cannot_hold_is_lost_there_and_only_there():
    near = -1e-20
    kept = Answer.of(make_answer([[-5.0, near], [-1.0, near]]))
    lost = Answer.of(make_answer([[-5.0, near], [-1.0, near]], unit="probability"))
    assert kept.log_levels[0, 1] == near
    assert lost.log_levels[0, 1] == 0.0
    np.testing.assert_allclose(kept.joint, lost.joint)


def test_a_level_that_is_not_finite_is_flagged_and_shares_nothing():
    logs = np.array([[-800.0, -1.0, -0.5], [-1.0, -2.0, -0.5]])
    answer = Answer.of(make_answer(logs, unit="probability"))
    assert [(f.row, f.point, f.kind) for f in answer.subject.flags] == [
        (0, 0, "non_finite_level")
    ]
    assert np.isnan(answer.credits[:, 0]).all()
    assert np.isfinite(answer.credits[:, 1]).all()
    assert np.isnan(answer.log_credits).tolist() == [[True, False], [False, False]]
    assert answer.joint[0] == 0
    np.testing.assert_allclose(answer.joint_credits[0], np.exp(-3.0))
    assert np.isnan(answer.completeness["total"]).all()
    flag = Flag(0, 0, "non_finite_state", "It is.")
    again = Answer.of(make_answer(logs, unit="probability", flags=(flag,)))
    assert again.subject.flags == (flag,)
    none = Answer.of(make_answer(logs - 800, unit="probability"))
    assert none.joint_credits[0] == 0


def test_words_are_added_up_and_can_be_opened():
    pieces = [" Ha", "noi", ",", " of", " course", "\n", "Yes"]
    logs = -np.abs(np.random.default_rng(0).normal(size=(7, 4)))
    answer = Answer.of(make_answer(logs, texts=pieces))
    words = answer.words()
    texts = [" Hanoi", ",", " of", " course", "\n", "Yes"]
    assert [word.text for word in words] == texts
    assert [piece for w in words for piece in range(w.start, w.stop)] == list(range(7))
    np.testing.assert_allclose(words[0].credits, answer.credits[:2].sum(0))
    np.testing.assert_allclose(words[0].log_level, logs[:2].sum(0))
    np.testing.assert_allclose(words[0].log_credits, np.diff(logs[:2].sum(0)))
    total = sum(word.credits for word in words)
    np.testing.assert_allclose(total, answer.joint_credits, atol=1e-15)


@given(pieces=st.lists(st.text(max_size=3), min_size=1))
def test_words_cover_every_piece_once(pieces):
    found = word_ranges(pieces)
    assert [i for a, b in found for i in range(a, b)] == list(range(len(pieces)))
    assert all(a < b for a, b in found)
    for a, _ in found[1:]:
        spaced = pieces[a][:1].isspace() or pieces[a - 1][-1:].isspace()
        assert spaced or not any(map(str.isalnum, pieces[a]))


@given(logs=tables(points=6), data=st.data())
@settings(deadline=None)
def test_coarsening_sums_what_it_merges(logs, data):
    attribution = make_answer(logs)
    answer = Answer.of(attribution)
    kept = data.draw(st.sets(st.sampled_from(answer.subject.layers)))
    coarse, direct = answer.coarsen(kept), Answer.of(attribution.coarsen(kept))
    assert coarse.subject.layers == direct.subject.layers
    np.testing.assert_array_equal(coarse.log_levels, direct.log_levels)
    np.testing.assert_allclose(coarse.log_credits, direct.log_credits, atol=1e-12)
    np.testing.assert_allclose(coarse.credits.sum(0), direct.credits.sum(0), atol=1e-14)
    np.testing.assert_allclose(coarse.token_credits, answer.token_credits, atol=1e-15)
    np.testing.assert_array_equal(coarse.writes, coarse.credits)
    np.testing.assert_array_equal(answer.writes, answer.credits)
    np.testing.assert_array_equal(answer.log_writes, answer.log_credits)


def test_coarsening_steps_over_what_is_not_finite():
    logs = np.array([[-2.0, -np.inf, -0.5], [-1.0, -2.0, -0.5]])
    answer = Answer.of(make_answer(logs))
    coarse = answer.coarsen([2])
    assert coarse.subject.flags == ()
    np.testing.assert_allclose(
        coarse.credits[:, 0], along_straight_logs(logs[:, 0], logs[:, 2])
    )
    np.testing.assert_allclose(coarse.log_credits[:, 0], [1.5, 0.5])
    assert answer.coarsen([1]).subject.flags == answer.subject.flags
    with pytest.raises(ArgumentError, match=r"\[9\]"):
        answer.coarsen([9])


def test_through_a_lens_the_writes_are_apart():
    logs = np.log([[0.1, 0.2, 0.4], [0.3, 0.6, 0.5]])
    starts = np.log([[0.15, 0.1], [0.5, 0.7]])
    given = {"lens": "ridge", "writes": logs[:, 1:] - starts}
    answer = Answer.of(make_answer(logs, **given))
    np.testing.assert_allclose(answer.log_writes, logs[:, 1:] - starts)
    through = np.exp(logs[:, 1:].sum(0)) - np.exp(starts.sum(0))
    np.testing.assert_allclose(answer.writes.sum(0), through)
    expected = along_straight_logs(starts[:, 0], logs[:, 1])
    np.testing.assert_allclose(answer.writes[:, 0], expected)
    same = answer.coarsen([1])
    np.testing.assert_array_equal(same.writes, answer.writes)
    np.testing.assert_array_equal(same.log_writes, answer.log_writes)
    coarse = answer.coarsen([2])
    assert np.isnan(coarse.writes).all()
    assert np.isfinite(coarse.credits).all()
    odd = Answer.of(make_answer(logs, unit="probability", lens="ridge"))
    assert np.isnan(odd.writes).all()
    assert np.isfinite(odd.credits).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"positions": np.array([2, 4])}, r"\[2, 4\], not one after"),
        ({"positions": np.array([2, 2])}, r"\[2, 2\], not one after"),
        ({"targets": (Target((10, 3), "a|b"), Target((11,), "b"))}, "explain a set"),
        ({"targets": (Target((3,), "Rome"), Target((11,), "b"))}, "'Rome', but.*' t0'"),
    ],
)
def test_rows_that_are_no_answer_are_refused(changes, said):
    attribution = make_answer([[-1.0, -2.0], [-3.0, -1.0]], **changes)
    with pytest.raises(ArgumentError, match=said):
        attribution.answer()
    assert whole_answer(attribution) is None


def test_the_last_token_need_not_be_in_the_text():
    logs = [[-1.0, -2.0], [-3.0, -1.0]]
    targets = (Target((10,), "a"), Target((96,), "other"))
    assert make_answer(logs, targets=targets).answer().text == "aother"
    shorter = make_answer(
        logs, token_ids=np.array([1, 2, 10]), token_texts=("a", "b", "t")
    )
    assert shorter.answer().texts == (" t0", " t1")


def test_only_answers_from_their_first_token_on_come_without_asking():
    logs = [[-1.0, -2.0], [-3.0, -1.0]]
    assert whole_answer(make_answer(logs)).text == " t0 t1"
    ids = np.concatenate([[1, 2, 3], 10 + np.arange(2)])
    later = make_answer(logs, begin=3, token_ids=ids, token_texts=("a",) * 5)
    assert later.answer()
    assert whole_answer(later) is None
    assert whole_answer(make_answer(logs[:1])) is None


def test_a_unit_or_sharing_that_says_nothing_is_refused():
    attribution = make_answer([[-1.0, -2.0], [-3.0, -1.0]])
    with pytest.raises(ArgumentError, match="'logit'"):
        replace(attribution, unit="logit").answer()
    with pytest.raises(ArgumentError, match="'equal'; known are logarithmic, product"):
        shares(np.zeros((1, 1)), np.zeros((1, 1)), "equal")


def test_small_changes_survive_the_exponential():
    assert change(np.array([-700.0]), np.array([-700.0])) == 0
    found = change(np.array([-1.0, 0.0, -np.inf]), np.array([0.0, -1e-20, -np.inf]))
    np.testing.assert_allclose(found, [1 - math.exp(-1), -1e-20, 0.0])


def test_the_tidy_table_adds_up_to_the_joint_credit():
    pieces = [" Ha", "noi", " is"]
    logs = np.log(np.random.default_rng(1).random((3, 4)))
    answer = Answer.of(make_answer(logs, texts=pieces))
    table = answer.to_arrow().to_pandas()
    assert table["word"].tolist() == [0] * 6 + [1] * 3
    assert table["token"].tolist() == [p for p in pieces for _ in range(3)]
    np.testing.assert_allclose(
        table.groupby("layer")["credit"].sum(), answer.joint_credits
    )
    assert table["position"].tolist() == [2] * 3 + [3] * 3 + [4] * 3


def test_the_sentence_says_the_whole_and_where():
    logs = np.log([[0.1, 0.2, 0.8], [0.2, 0.3, 0.5]])
    text = str(Answer.of(make_answer(logs, texts=[" Ha", "noi"])))
    first, second = text.split("\n")[:2]
    assert first == (
        "' Hanoi' (2 tokens): joint probability 0.40; 0.34 of it became readable "
        "between layers 1 and 2."
    )
    assert second == (
        "  ' Hanoi' (2 pieces): log-probability -0.92, 100% of the change of the "
        "joint probability; most moved between layers 1 and 2 (+1.90 nats)."
    )
    fallen = str(Answer.of(make_answer(logs[:, ::-1])))
    assert "was lost again between layers 0 and 1" in fallen
    same = str(Answer.of(make_answer(logs[:, [0, 0]])))
    assert "the layers do not change it" in same
    odd = make_answer([[-1.0, -np.inf], [-1.0, -1.0]], warnings=("Beware.",)).answer()
    assert "joint probability 0.00" in str(odd)
    assert str(odd).endswith("Warning: Beware.")
    long = make_answer(logs, texts=[" long" * 20, "\x1b[0m"]).answer()
    assert "…' (2 tokens)" in str(long)
    assert "\x1b" not in str(long)
