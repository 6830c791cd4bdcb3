import pytest
import torch

from iglens.model.inside.values import Origin, Values, distinct

GIVEN = Origin("given")


@pytest.fixture
def made():
    """What was numbered, and what numbers it."""
    origins = []

    def number(tensor, origin):
        origins.append(origin)
        return len(origins) - 1

    return origins, Values(number)


def write(values, tensor, *parents):
    values.written(tensor, Origin("write", parents))


def test_a_tensor_holds_the_value_it_was_made_with(made):
    origins, values = made
    one, other = torch.zeros(2), torch.zeros(2)
    values.made(one, GIVEN, is_view=False)
    values.made(other, None, is_view=False)
    assert (values.of(one), values.of(other), values.of(torch.zeros(2))) == (
        0,
        None,
        None,
    )
    assert origins == [GIVEN]


def test_a_write_through_a_view_changes_what_the_whole_holds(made):
    origins, values = made
    whole = torch.zeros(4)
    values.made(whole, GIVEN, is_view=False)
    write(values, whole[:2], 0)
    joined = values.of(whole)
    assert origins[joined] == Origin("", (0, 1))
    assert values.of(whole) == joined


def test_a_write_to_the_same_numbers_is_what_others_of_that_shape_hold(made):
    _, values = made
    whole = torch.zeros(4)
    values.made(whole, GIVEN, is_view=False)
    write(values, whole.view(4), 0)
    assert values.of(whole) == 1


def test_of_two_writes_through_views_taken_before_both_count(made):
    origins, values = made
    whole = torch.zeros(4)
    first, second = whole[:2], whole[2:]
    values.made(whole, None, is_view=False)
    write(values, first, 7)
    write(values, second, 8)
    (last,) = origins[values.of(whole)].parents
    assert origins[last].parents == (8, 0)
    assert origins[0].parents == (7,)


def test_what_was_overwritten_with_nothing_holds_nothing(made):
    _, values = made
    whole = torch.zeros(4)
    values.made(whole, GIVEN, is_view=False)
    write(values, whole)
    assert values.of(whole) is None


def test_memory_that_is_used_again_tells_nothing_of_before(made):
    _, values = made
    memory = torch.zeros(4)
    write(values, memory[:2], 3)
    fresh = memory.view(2, 2)
    values.made(fresh, None, is_view=False)
    assert values.of(fresh) is None


def test_a_view_of_what_was_written_shows_it(made):
    _, values = made
    memory = torch.zeros(4)
    write(values, memory, 3)
    view = memory.view(2, 2)
    values.made(view, None, is_view=True)
    assert values.of(view) is not None


def test_values_are_listed_once():
    assert distinct([3, None, 1, 3]) == (3, 1)
