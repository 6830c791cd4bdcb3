"""What is remembered, and for how long."""

from factories import make_attribution

from iglens.serve.limits import Limits
from iglens.serve.question import Question
from iglens.serve.shelf import Kept, Shelf, size_of


def kept(number, **but):
    question = Question(prompt=[number])
    return Kept(question, question, f"text {number}", make_attribution(**but))


def names(shelf):
    return [one.text for _, one in shelf.newest()]


def test_the_newest_stay():
    shelf = Shelf(Limits(kept=3))
    for number in range(5):
        shelf.put(kept(number))
    assert names(shelf) == ["text 4", "text 3", "text 2"]


def test_the_same_question_again_moves_to_the_front_and_takes_no_second_place():
    shelf = Shelf(Limits(kept=3))
    first = shelf.put(kept(0))
    shelf.put(kept(1))
    assert shelf.put(kept(0)) == first
    assert names(shelf) == ["text 0", "text 1"]


def test_large_results_push_out_more_and_the_newest_is_kept_in_any_case():
    size = size_of(kept(0).result)
    assert size > 500
    shelf = Shelf(Limits(kept_bytes=int(2.5 * size)))
    for number in range(4):
        shelf.put(kept(number))
    assert names(shelf) == ["text 3", "text 2"]
    big = kept(9, rows=200, n_layers=60)
    assert size_of(big.result) > 3 * size
    shelf.put(big)
    assert names(shelf) == ["text 9"]


def test_what_was_forgotten_is_gone():
    shelf = Shelf(Limits())
    name = shelf.put(kept(0))
    assert shelf.get(name) is not None
    assert shelf.clear() == 1
    assert shelf.get(name) is None
