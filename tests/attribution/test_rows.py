import numpy as np
import pytest
import torch
from toys import Head, make_head, make_trace, normal, token

from iglens.attribution import attribute
from iglens.attribution.rows import resolve_rows
from iglens.errors import ArgumentError, TargetError
from iglens.records import Target


def pairs_of(rows, trace):
    places = trace.positions[rows.place].tolist()
    return list(zip(places, [target.ids for target in rows.targets], strict=True))


def test_without_targets_every_position_explains_its_own_token():
    trace = make_trace(rows=4)
    rows = resolve_rows(trace, None)
    ids = trace.token_ids.tolist()
    assert pairs_of(rows, trace) == [(i, (ids[i],)) for i in (1, 2, 3, 4)]
    assert [t.text for t in rows.targets] == list(trace.token_texts[1:])


def test_one_target_is_explained_at_every_position():
    trace = make_trace(rows=2)
    assert pairs_of(resolve_rows(trace, token(3, 5)), trace) == [
        (1, (3, 5)),
        (2, (3, 5)),
    ]


def test_several_targets_are_explained_at_every_position():
    trace = make_trace(rows=2)
    rows = resolve_rows(trace, [token(3), token(5)])
    assert pairs_of(rows, trace) == [(1, (3,)), (1, (5,)), (2, (3,)), (2, (5,))]


def test_pairs_are_explained_in_the_order_of_their_positions():
    trace = make_trace(rows=3)
    pairs = [(3, token(3)), (1, token(7)), (3, token(1))]
    rows = resolve_rows(trace, (pair for pair in pairs))
    assert pairs_of(rows, trace) == [(1, (7,)), (3, (3,)), (3, (1,))]


def test_every_token_is_wanted_once_per_position():
    trace = make_trace(rows=3)
    rows = resolve_rows(
        trace, [(1, token(4, 9)), (1, token(9, 2)), (3, token(9)), (1, token(9))]
    )
    assert rows.tokens.tolist() == [[4, 9, 2], [-1, -1, -1], [9, -1, -1]]
    assert rows.chosen.tolist() == [
        [True, True, False],
        [False, True, True],
        [False, True, False],
        [True, False, False],
    ]


@pytest.mark.parametrize("bad", [-1, 97, 10**6])
def test_targets_outside_the_vocabulary_are_refused(bad):
    with pytest.raises(TargetError, match=rf"\[{bad}\].*\[0, 97\)"):
        resolve_rows(make_trace(), Target((bad,), "?"))


@pytest.mark.parametrize("good", [0, 96])
def test_targets_of_the_vocabulary_are_accepted(good):
    resolve_rows(make_trace(), token(good))


def test_the_position_after_the_text_needs_a_target():
    trace = make_trace(rows=2, positions=torch.tensor([2, 3]))
    with pytest.raises(TargetError, match="ends before position 3: pass `targets`"):
        resolve_rows(trace, None)
    assert pairs_of(resolve_rows(trace, token(1)), trace) == [(2, (1,)), (3, (1,))]


def test_a_position_that_was_not_traced_is_refused():
    trace = make_trace(rows=2)
    with pytest.raises(ArgumentError, match=r"Position 7 was not traced.*\[1, 2\]"):
        resolve_rows(trace, [(7, token(1))])


def test_nothing_to_explain_is_refused():
    with pytest.raises(ArgumentError, match="Nothing to explain"):
        resolve_rows(make_trace(), [])


def test_targets_of_one_position_share_its_states():
    """However many are asked about, every state is normed once."""
    normed = []

    def norm(h):
        normed.append(len(h))
        return h

    head = Head(norm, normal(97, 12, dtype=torch.float32))
    trace = make_trace(head, rows=3)
    counts = []
    for targets in ([token(1)], [token(1), token(2), token(3, 4, 5)]):
        normed.clear()
        attribute(trace, targets, diagnostics=False)
        counts.append(sum(normed))
    assert counts[0] == counts[1] > 0


def test_a_target_gives_the_same_alone_as_among_others():
    trace = make_trace(make_head(dtype=torch.float64), rows=3)
    targets = [token(1), token(2, 3), token(3), token(96, 1, 50)]
    together = attribute(trace, targets)
    for row, target in enumerate(targets):
        alone = attribute(trace, target)
        among = together.select([row + len(targets) * i for i in range(3)])
        np.testing.assert_allclose(among.levels, alone.levels, atol=1e-14)
        np.testing.assert_array_equal(among.top1, alone.top1)
        np.testing.assert_array_equal(among.rank, alone.rank)
        np.testing.assert_allclose(among.lens_kl, alone.lens_kl, atol=1e-13)
