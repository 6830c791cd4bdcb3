"""What two paths have in common keeps all credit, and puts it where it belongs."""

import numpy as np
import pytest
from stores import blocks, sublayers

from iglens.corpus.steps import Common
from iglens.records import block_segment

EMBEDDING = block_segment(None, 0, ())


def coarse(*layers):
    """A path that stops at some layers only."""
    return [
        block_segment(start, end, ())
        for start, end in zip((0, *layers), layers, strict=False)
    ]


def test_the_same_path_is_compared_segment_by_segment():
    found = Common.of(blocks(4), blocks(4), (4, 4))
    assert found.by == "segments"
    assert (found.a == np.eye(4)).all()
    assert (found.b == np.eye(4)).all()
    assert found.ends == (1.0, 2.0, 3.0, 4.0)


def test_parts_of_blocks_add_up_to_blocks():
    found = Common.of(blocks(3), sublayers(3), (3, 3))
    assert found.by == "layers"
    assert (found.a == np.eye(3)).all()
    assert (found.b == np.repeat(np.eye(3), 2, axis=0)).all()
    assert found.labels == ("layer 1", "layer 2", "layer 3")


def test_paths_that_stop_elsewhere_meet_where_both_stop():
    found = Common.of(coarse(2, 4, 6), coarse(1, 4, 5, 6), (6, 6))
    assert found.labels == ("layers 1-4", "layers 5-6")
    assert found.a.tolist() == [[1, 0], [1, 0], [0, 1]]
    assert found.b.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_the_embeddings_own_segment_stays_apart():
    found = Common.of([EMBEDDING, *blocks(2)], blocks(2), (2, 2))
    assert found.labels == ("embedding", "layer 1", "layer 2")
    assert (found.a == np.eye(3)).all()
    assert found.b.tolist() == [[0, 1, 0], [0, 0, 1]]


def test_models_of_different_depth_are_compared_by_tenths():
    found = Common.of(blocks(5), blocks(20), (5, 20))
    assert (found.by, len(found.labels)) == ("fractions", 10)
    assert found.a[0].tolist() == pytest.approx([0.5, 0.5, *[0] * 8])
    assert found.b[3].tolist() == pytest.approx([0, 1, *[0] * 8])
    assert (found.scale_a, found.scale_b) == (5, 20)


@pytest.mark.parametrize("path", [blocks(7), sublayers(13), coarse(3, 4, 11)])
@pytest.mark.parametrize("other", [blocks(6), [EMBEDDING, *sublayers(4)]])
def test_no_credit_is_lost_or_made(path, other):
    found = Common.of(path, other, (path[-1].layer, other[-1].layer))
    for side in (found.a, found.b):
        assert side.sum(1) == pytest.approx(np.ones(len(side)))
        assert (side >= 0).all()
