import hypothesis.strategies as st
import pytest
from hypothesis import given

from iglens.errors import ArgumentError, ArgumentTypeError, IGLensError
from iglens.explaining.choices import choose_layers, choose_positions

bounds = st.none() | st.integers(-12, 12)
steps = st.none() | st.integers(-4, 4)


def written(*parts):
    return ":".join("" if part is None else str(part) for part in parts)


@pytest.mark.parametrize(
    ("positions", "chosen"),
    [
        ("answer", [5, 6, 7]),
        ("prompt", [1, 2, 3, 4]),
        ("all", [1, 2, 3, 4, 5, 6, 7]),
        ("5:9", [5, 6, 7]),
        ("-3:", [5, 6, 7]),
        (":2", [1]),
        (" 2 : 4 ", [2, 3]),
        ("::3", [3, 6]),
        ([6, 2], [6, 2]),
        ((8,), [8]),
        (range(1, 4), [1, 2, 3]),
    ],
)
def test_positions_are_read_as_documented(positions, chosen):
    assert choose_positions(positions, 5, 8) == chosen


@given(start=bounds, stop=bounds, step=steps, n_text=st.integers(1, 10))
def test_slices_of_positions_are_python_s_without_the_first_token(
    start, stop, step, n_text
):
    text = written(start, stop, step)
    try:
        expected = [i for i in range(n_text)[slice(start, stop, step)] if i]
    except ValueError:
        expected = None  # a step of zero
    if expected:
        assert choose_positions(text, 1, n_text) == expected
    else:
        with pytest.raises(ArgumentError, match="`positions`"):
            choose_positions(text, 1, n_text)


@pytest.mark.parametrize(
    ("positions", "n_prompt", "n_text"),
    [("answer", 5, 5), ("prompt", 1, 4), ("all", 1, 1), ("7:", 5, 7), ("3:3", 5, 7)],
)
def test_a_choice_that_leaves_nothing_is_refused(positions, n_prompt, n_text):
    with pytest.raises(ArgumentError, match=f"leaves nothing.*{n_text} tokens"):
        choose_positions(positions, n_prompt, n_text)


@pytest.mark.parametrize("bad", ["", "last", "3", "1,2", "a:b", "1:2:3:4", "1.5:"])
def test_what_is_no_choice_of_positions_is_refused_with_the_choices(bad):
    with pytest.raises(ArgumentError, match=r"answer, prompt, all or a slice"):
        choose_positions(bad, 5, 8)


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        ("all", None),
        ("1,5,10", [1, 5, 10]),
        (" 3 , 4", [3, 4]),
        ("7", [7]),
        ("::4", [0, 4, 8]),
        ("8:", [8, 9, 10]),
        ("-2:", [9, 10]),
        ([5, 1], [5, 1]),
        ((), []),
        (range(2, 4), [2, 3]),
    ],
)
def test_layers_are_read_as_documented(layers, chosen):
    assert choose_layers(layers, 10) == chosen


@given(start=bounds, stop=bounds, step=steps)
def test_slices_of_layers_are_python_s_over_zero_to_the_last(start, stop, step):
    text = written(start, stop, step)
    try:
        expected = list(range(11)[slice(start, stop, step)])
    except ValueError:
        expected = []  # a step of zero
    if expected:
        assert choose_layers(text, 10) == expected
    else:
        with pytest.raises(ArgumentError, match="`layers`"):
            choose_layers(text, 10)


@pytest.mark.parametrize("bad", ["", "none", "1;2", "1,,2", "1.5", "a:", "1:2:3:4"])
def test_what_is_no_choice_of_layers_is_refused_with_the_choices(bad):
    with pytest.raises(ArgumentError, match=r"all.*1,5,30.*slice"):
        choose_layers(bad, 10)


@pytest.mark.parametrize("bad", [[True], [1, False]])
@pytest.mark.parametrize(
    "choose", [choose_layers, lambda p, n: choose_positions(p, 2, n)]
)
def test_truth_values_are_no_numbers(bad, choose):
    with pytest.raises(ArgumentTypeError, match="whole numbers"):
        choose(bad, 10)


@given(text=st.text(alphabet="0123:-, ", max_size=8))
def test_whatever_is_written_is_read_or_refused_in_plain_words(text):
    for choose in (
        lambda: choose_layers(text, 9),
        lambda: choose_positions(text, 3, 6),
    ):
        try:
            chosen = choose()
        except IGLensError:
            continue
        assert chosen
