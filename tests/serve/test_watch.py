"""Stopping between two operations, without a trace on model or numbers."""

import threading
import time

import families
import numpy as np
import pytest
import torch

import iglens
from iglens.serve.watch import Stoppable, StoppedError, Watch, counted_passes


def a_watch(seconds=60.0):
    return Watch(seconds, lambda stage, done, of: None)


@pytest.mark.parametrize("by", ["layer", "head", "source"])
def test_watching_changes_no_number(fragile, by):
    def run():
        return iglens.explain(fragile, "The capital", by=by, max_new_tokens=3)

    plain = run()
    with Stoppable(a_watch()):
        watched = run()
    np.testing.assert_array_equal(watched.levels, plain.levels)
    np.testing.assert_array_equal(watched.credits, plain.credits)
    if by != "layer":
        one, other = watched.components, plain.components
        np.testing.assert_array_equal(one.credits, other.credits)


class Counting(Watch):
    """A watch that is cancelled at the n-th look."""

    def __init__(self, at):
        super().__init__(60.0, lambda stage, done, of: None)
        self.at, self.looks = at, 0

    def check(self):
        self.looks += 1
        if self.looks == self.at:
            self.cancel()
        super().check()


@pytest.fixture(scope="module")
def undisturbed():
    """A decoder, what is asked of it, how often that looks, and what comes out."""
    decoder = iglens.Decoder(families.build("llama"))

    def run():
        decoder.__dict__.pop("sublayers", None)  # to be found anew
        return iglens.explain(decoder, [3, 1, 4, 1], by="source", max_new_tokens=3)

    watch = Counting(0)
    with Stoppable(watch):
        wanted = run()
    return decoder, run, watch.looks, wanted


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_wherever_it_is_stopped_the_model_is_left_as_it_was(undisturbed, share):
    decoder, run, looks, wanted = undisturbed
    before = families.fingerprint(decoder.model)
    watch = Counting(1 + int(share * looks))
    with (
        pytest.raises(StoppedError, match="cancelled"),
        Stoppable(watch),
        counted_passes(decoder.model, lambda n: None),
    ):
        run()
    assert watch.looks == watch.at  # nobody on the way took it for something else
    assert families.fingerprint(decoder.model) == before
    if share in (0.1, 0.99):
        again = run()
        np.testing.assert_array_equal(again.levels, wanted.levels)
        np.testing.assert_array_equal(
            again.components.credits, wanted.components.credits
        )


def test_other_threads_are_not_stopped():
    watch = a_watch()
    watch.cancel()
    found = []
    other = threading.Thread(target=lambda: found.append(float(torch.ones(3).sum())))

    def both():
        other.start()
        other.join()
        torch.ones(1).exp()

    with pytest.raises(StoppedError), Stoppable(watch):
        both()
    assert found == [3.0]


def test_what_puts_things_back_is_never_broken_off():
    watch = a_watch()
    weight, kept = torch.nn.Parameter(torch.zeros(3)), torch.ones(3)
    with Stoppable(watch):
        try:
            watch.cancel()
            torch.ones(3).exp()
        except StoppedError:
            torch.set_grad_enabled(torch.is_grad_enabled())
            weight.data = kept.clone()
            weight.data.copy_(kept * 2)
    assert weight.tolist() == [2.0, 2.0, 2.0]


def test_time_runs_from_the_beginning_and_not_while_waiting():
    watch = a_watch(0.05)
    time.sleep(0.1)
    watch.check()
    watch.begin()
    watch.check()
    time.sleep(0.1)
    with pytest.raises(StoppedError) as stopped:
        watch.check()
    assert stopped.value.reason == "timeout"


def test_passes_of_this_thread_are_counted(fragile):
    seen = []
    with counted_passes(fragile.model, seen.append):
        fragile.generate([5, 6], 4)
    n_tokens = len(seen)
    assert seen == [1, 2, 3, 4][:n_tokens]
    assert n_tokens >= 1
    fragile.generate([5, 6], 2)
    assert len(seen) == n_tokens
