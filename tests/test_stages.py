"""Stages: what adds up, what counts apart, and that nobody counts unasked."""

import threading
import time

import pytest

import iglens
from iglens.stages import Clock, stage

TICK = 0.02


def test_stages_add_up_to_the_time_that_has_passed():
    start = time.perf_counter()
    clock = Clock()
    with clock.on("load"):
        time.sleep(TICK)
        with stage("forward"):
            time.sleep(2 * TICK)
    time.sleep(TICK)
    seconds = clock.seconds
    passed = time.perf_counter() - start
    assert sum(seconds.values()) == pytest.approx(passed, rel=0.02)


def test_a_stage_inside_another_counts_for_itself_alone():
    clock = Clock()
    with clock.on("load"):
        time.sleep(TICK)
        with stage("forward"):
            time.sleep(3 * TICK)
        time.sleep(TICK)
    seconds = clock.seconds
    assert 3 * TICK <= seconds["forward"] < 5 * TICK + 0.2
    assert 2 * TICK <= seconds["load"] < seconds["forward"] + 0.2
    assert seconds["load"] + seconds["forward"] <= 0.4


def test_stages_come_in_the_order_in_which_they_began_and_other_is_last():
    clock = Clock()
    for name in ("load", "forward", "load", "readout"):
        with clock.on(name):
            pass
    assert [*clock.seconds] == ["load", "forward", "readout", "other"]


def test_a_stage_ends_where_an_error_leaves_it():
    clock = Clock()
    with pytest.raises(RuntimeError), clock.on("load"), stage("forward"):
        raise RuntimeError
    time.sleep(TICK)
    assert clock.seconds["other"] >= TICK
    assert clock.seconds["forward"] < TICK


def test_nothing_is_counted_once_the_clock_is_off():
    clock = Clock()
    with clock.on("load"):
        pass
    with stage("forward"):
        pass
    assert "forward" not in clock.seconds


def test_another_thread_does_not_count_on_this_clock():
    clock = Clock()

    def work():
        with stage("forward"):
            pass

    with clock.on("load"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "forward" not in clock.seconds


def test_the_library_passes_through_its_stages(tiny_folder):
    kind, explain = iglens.Decoder, iglens.explain  # imported before time counts
    clock = Clock()
    with clock.on():
        decoder = kind.from_pretrained(str(tiny_folder))
        explain(decoder, "The capital of France is", max_new_tokens=2)
    seconds = clock.seconds
    assert {"load", "verify", "tokenise", "generate", "forward", "readout"} <= {
        name for name, each in seconds.items() if each > 0
    }
    assert seconds["other"] < 0.2 * sum(seconds.values())
