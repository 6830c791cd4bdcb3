"""What is inside the layers, in lines: they add up, and say what they are."""

import re
from dataclasses import replace

import numpy as np
import pytest
from factories import HOSTILE, make_attribution

from iglens.records.components import Components
from iglens.records.segment import part_segment
from iglens.report.components import PARTS, TOKENS, lines
from iglens.report.text import summary

N_LAYERS = 2
"""Each of an attention and an MLP."""


def opened(by="head", *, rows=1, n_text=3, listed=4, left_out=0, unit="probability"):
    """A result whose attentions consist of heads and a bias, its MLPs being whole."""
    rng = np.random.default_rng(1)
    layers = [1, 1, 2, 2]
    result = make_attribution(rows=rows, layers=layers, n_layers=N_LAYERS, unit=unit)
    segments = tuple(
        part_segment(layer, part, None, "")
        for layer in (1, 2)
        for part in ("attention", "mlp")
    )
    kinds, at, indices, sources = [], [], [], []
    kind, besides = ("source", "head bias") if by == "source" else ("head", "bias")
    for segment in (0, 2):
        kinds += [kind] * listed + [besides]
        at += [segment] * (listed + 1)
        indices += [*range(listed), -1]
        sources += [i % n_text if by == "source" else -1 for i in range(listed)] + [-1]
    credits = rng.normal(size=(rows, len(kinds))) / 10
    others = rng.normal(size=(rows, 4)) / 10
    others[:, [0, 2]] *= 1 if left_out else 1e-17
    numbers = np.full((rows, 4), np.nan)
    numbers[:, [0, 2]] = 1e-9
    inside = Components(
        by=by,
        segments=np.array(at),
        kinds=tuple(kinds),
        indices=np.broadcast_to(indices, (rows, len(kinds))),
        sources=np.broadcast_to(sources, (rows, len(kinds))),
        credits=credits,
        others=others,
        n_parts=np.array([listed + left_out, 0, listed + left_out, 0]),
        residual=numbers,
        disagreement=numbers / 10,
        closed=numbers * 2,
        tolerance=1e-6,
        tokens=rng.normal(size=(rows, 4, n_text)) if by == "source" else None,
        reasons={1: "it is no attention", 3: "it is no attention"},
    )
    total = inside.totals
    levels = 0.5 + np.concatenate([np.zeros((rows, 1)), np.cumsum(total, 1)], 1)
    texts = tuple(f" t{i}" for i in range(n_text))
    return replace(
        result,
        segments=segments,
        levels=levels,
        credits=total,
        writes=total,
        token_ids=np.arange(n_text),
        token_texts=texts,
        components=inside,
    )


def told(result):
    """The lines of parts of the first row: credit and name."""
    first = lines(result)[1:]
    parts = []
    for line in first:
        if not (found := re.match(r"  ([+-]\S+) (.*)", line)):
            break
        parts.append((float(found[1]), found[2]))
    return parts


@pytest.mark.parametrize("by", ["head", "source"])
@pytest.mark.parametrize(("listed", "left_out"), [(4, 0), (4, 60), (30, 0)])
def test_told_lines_add_up_to_the_total_in_the_title(by, listed, left_out):
    result = opened(by, listed=listed, left_out=left_out)
    title, parts = lines(result)[0], told(result)
    total = float(re.search(r"\(([+-]\S+) in all\):$", title)[1])
    assert total == pytest.approx(result.credits.sum(), abs=6e-4)
    assert sum(v for v, _ in parts) == pytest.approx(total, abs=1e-3 * len(parts))
    assert len(parts) > 3


def test_largest_parts_come_first_with_their_signs():
    result = opened(listed=20)
    inside = result.components
    heads = [(v, n) for v, n in told(result) if re.search(r"head \d+$", n)]
    assert len(heads) == PARTS
    sizes = [abs(value) for value, _ in heads]
    assert sizes == sorted(sizes, reverse=True)
    for value, name in heads:
        layer, head = map(int, re.fullmatch(r"layer (\d) head (\d+)", name).groups())
        (at,) = np.flatnonzero(
            (inside.segments == 2 * (layer - 1)) & (inside.indices[0] == head)
        )
        assert value == pytest.approx(inside.credits[0, at], abs=6e-4)
    assert {value > 0 for value, _ in heads} == {True, False}


def test_the_rest_is_told_by_what_it_is():
    result = opened(listed=20)
    rest = [name for _, name in told(result)[PARTS:]]
    assert rest == [
        "30 other heads",
        "biases behind heads or neurons",
        "mlp of 2 layers, not opened",
    ]
    (mlp,) = [value for value, name in told(result) if name.startswith("mlp")]
    assert mlp == pytest.approx(result.credits[0, [1, 3]].sum(), abs=6e-4)


def test_a_part_of_a_kind_without_words_is_told_too():
    result = opened()
    inside = result.components
    kinds = tuple("new kind" if kind == "bias" else kind for kind in inside.kinds)
    parts = told(replace(result, components=replace(inside, kinds=kinds)))
    assert "new kind" in [name for _, name in parts]
    total = sum(value for value, _ in parts)
    assert total == pytest.approx(result.credits.sum(), abs=1e-3 * len(parts))


@pytest.mark.parametrize("top", [1, 3])
def test_no_more_parts_are_called_the_largest_than_were_kept(top):
    """A part of a layer that was left out may be larger than one of another layer."""
    short, full = opened(listed=top, left_out=60), opened(listed=top)
    assert len([n for _, n in told(short) if re.search(r"head \d+$", n)]) == top
    assert len([n for _, n in told(full) if re.search(r"head \d+$", n)]) == 2 * top


def test_a_credit_that_would_round_to_zero_is_none():
    result = opened()
    inside = replace(result.components, credits=result.components.credits * 1e-5)
    small = replace(result, components=inside)
    parts = [line for line in lines(small) if "layer 1 head" in line]
    assert len(parts) == 4
    assert not [line for line in parts if re.match(r"  [+-]0\.000", line)]
    assert all(re.match(r"  [+-]\de-0\d ", line) for line in parts)


@pytest.mark.parametrize(("bias", "is_told"), [(2e-6, True), (5e-7, False)])
def test_rests_that_may_be_rounding_alone_are_not_told(bias, is_told):
    result = opened()
    credits = result.components.credits.copy()
    credits[:, [4, 9]] = bias / 2
    inside = replace(result.components, credits=credits)
    names = [name for _, name in told(replace(result, components=inside))]
    assert ("biases behind heads or neurons" in names) == is_told
    small = replace(inside, credits=credits * 1e-5)  # where all is small, so is this
    small.credits[:, [4, 9]] = bias / 2
    names = [name for _, name in told(replace(result, components=small))]
    assert "biases behind heads or neurons" in names


def test_every_row_names_its_target_and_place():
    result = opened(rows=3)
    titles = [line for line in lines(result) if line.endswith("in all):")]
    assert len(titles) == 3
    for position, target, title in zip(
        result.positions, result.targets, titles, strict=True
    ):
        assert title.startswith(f"'{target.text}' at {position} by head (")


def test_sources_name_tokens_and_what_was_read_from_each():
    result = opened("source", n_text=3)
    said = lines(result)
    assert re.search(r"layer \d head \d from ' t\d' at \d$", said[1])
    assert "  Read by attention, all heads together:" in said
    by_token = result.components.tokens[0].sum(0)
    found = {
        int(at): float(value)
        for line in said
        for value, at in re.findall(r"^    ([+-]\S+) from ' t\d' at (\d) \(layer", line)
    }
    assert found == {i: pytest.approx(v, abs=6e-4) for i, v in enumerate(by_token)}
    assert any("already mixes earlier tokens: read from, not caused" in x for x in said)
    assert not any("already mixes" in line for line in lines(opened("head")))


def test_tokens_beyond_the_largest_are_summed_not_dropped():
    result = opened("source", n_text=TOKENS + 5)
    values = [
        float(value)
        for line in lines(result)
        for value in re.findall(r"^    ([+-]\S+) from ", line)
    ]
    assert len(values) == TOKENS + 1
    total = result.components.tokens[0].sum()
    assert sum(values) == pytest.approx(total, abs=1e-3 * len(values))
    assert any(line.endswith("from 5 other tokens") for line in lines(result))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_tokens_are_shown_on_their_line(hostile):
    result = opened("source", n_text=1)
    odd = replace(result, token_texts=(hostile,))
    said = lines(odd)
    assert len(said) == len(lines(result))
    for line in said:
        assert not re.search(r"[\x00-\x1f\x7f\u202a-\u202e]", line)


def test_the_certificate_says_so_where_it_fails():
    good = lines(opened())
    assert (
        "Certified: integrals missed 1e-09 at most, and two rules differ by 1e-10 at "
        "most on any part (tolerance 1e-06); 2e-09 at most was closed."
    ) in good
    for field in ("residual", "disagreement"):
        result = opened()
        bad = getattr(result.components, field).copy()
        bad[0, 2] = 3e-3
        inside = replace(result.components, **{field: bad})
        said = lines(replace(result, components=inside))
        (line,) = [text for text in said if "ertified" in text]
        assert line.startswith("NOT certified: ")
        assert "0.003 at most" in line


def test_what_was_not_opened_is_said_with_the_reason():
    said = lines(opened())
    assert said[-1] == "Not opened by head: mlp of 2 layers (it is no attention)."


def test_levels_that_are_not_finite_share_nothing_out():
    result = opened(rows=2)
    credits = result.credits.copy()
    credits[0, 1] = np.nan
    said = lines(replace(result, credits=credits))
    assert said[0].endswith("the levels are not finite, so nothing is shared out.")
    assert said[1].endswith("in all):")
    assert not any("nan" in line for line in said)


def test_printing_a_result_tells_what_is_inside():
    result = opened()
    text = str(result)
    assert "\n".join(lines(result)) in text
    assert text == summary(result)
    assert "in all):" not in str(replace(result, components=None))
