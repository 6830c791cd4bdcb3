import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from toys import make_trace

from iglens.attribution.path import make_path, path_layers
from iglens.errors import ArgumentError


def spans(path):
    return [(segment.after, segment.layer) for segment in path.segments]


@given(layers=st.none() | st.lists(st.integers(0, 6)))
def test_a_path_goes_from_the_embedding_to_the_last_layer(layers):
    found = path_layers(6, layers)
    expected = range(7) if layers is None else {0, *layers, 6}
    assert found == tuple(sorted(expected))


@pytest.mark.parametrize("bad", [[7], [-1], [1, 9, -3]])
def test_layers_out_of_range_are_refused(bad):
    unknown = sorted(set(bad) - {1})
    with pytest.raises(ArgumentError, match="layers 1 to 6") as error:
        path_layers(6, bad)
    assert str(unknown) in str(error.value)


def test_layers_that_were_not_traced_are_refused():
    with pytest.raises(ArgumentError, match=r"\[3\].*out of \[0, 2, 6\]"):
        path_layers(6, [2, 3], known=(0, 2, 6))
    assert path_layers(6, [2], known=(0, 2, 6)) == (0, 2, 6)
    assert path_layers(6, None, known=(0, 2, 6)) == (0, 2, 6)


def test_the_embedding_baseline_is_the_path_s_own_first_state():
    trace = make_trace(n_layers=4)
    path = make_path(trace, [2], "embedding")
    assert spans(path) == [(0, 2), (2, 4)]
    assert torch.equal(path.states(slice(0, 3)), trace.states[[0, 2, 4]])


def test_another_baseline_gives_the_embedding_a_segment_of_its_own():
    trace = make_trace(n_layers=4)
    path = make_path(trace, [2], "zero")
    assert spans(path) == [(None, 0), (0, 2), (2, 4)]
    assert [segment.part for segment in path.segments] == [
        "embedding",
        "blocks",
        "blocks",
    ]
    states = path.states(slice(1, 3))
    assert torch.equal(states[0], torch.zeros(2, 12))
    assert torch.equal(states[1:], trace.states[[0, 2, 4], 1:3])


def test_the_paper_s_mean_leaves_the_embedding_out():
    assert spans(make_path(make_trace(n_layers=4), None, "paper-mean")) == [
        (None, 1),
        (1, 2),
        (2, 3),
        (3, 4),
    ]


def test_a_trace_of_some_layers_has_paths_through_those():
    whole = make_trace(n_layers=4)
    trace = make_trace(
        states=whole.states[[0, 3, 4]],
        layers=(0, 3, 4),
        modules=whole.modules,
    )
    path = make_path(trace, None, "embedding")
    assert spans(path) == [(0, 3), (3, 4)]
    assert path.segments[1].module == "blocks.3"
    with pytest.raises(ArgumentError, match="out of"):
        make_path(trace, [2], "embedding")


@settings(deadline=None)
@given(
    rows=st.integers(1, 50),
    at_once=st.integers(0, 60),
    baseline=st.sampled_from(["embedding", "zero"]),
)
def test_chunks_hold_every_row_once_and_whole_paths(rows, at_once, baseline):
    path = make_path(make_trace(n_layers=3, rows=1), None, baseline)
    chunks = list(path.row_chunks(rows, at_once))
    seen = [row for chunk in chunks for row in range(rows)[chunk]]
    assert seen == list(range(rows))
    for chunk in chunks:
        size = chunk.stop - chunk.start
        assert size == 1 or size * path.n_states <= at_once
