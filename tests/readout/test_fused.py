"""The fused kernel in Triton's interpreter, and how it is chosen.

Without a GPU there is nothing to time; what the kernel computes is the same.
"""

import os

import pytest
import torch

from iglens.readout import LinearReadout, read
from iglens.readout import fused as room
from iglens.readout.fused import soft_cap

WITHOUT = "no Triton: `make oracles` has one"


@pytest.fixture
def interpreted(monkeypatch):
    """The kernel on the CPU, and tried there."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("TRITON_INTERPRET=1 was not set when Triton was imported")
    pytest.importorskip("triton", reason=WITHOUT)
    monkeypatch.setattr(room, "DEVICES", ("cpu",))
    monkeypatch.setattr(room, "_faster", lambda *_: True)
    monkeypatch.setattr(room, "_chosen", {})
    monkeypatch.setattr(room, "FEWEST", 1)


@pytest.fixture
def calls(monkeypatch):
    """How often the kernel ran."""
    found, kernel = [], room._kernel

    def counted(*args):
        found.append(1)
        return kernel(*args)

    monkeypatch.setattr(room, "_kernel", counted)
    return found


def case(points=70, d_model=40, vocab=700, dtype=torch.float32, post=None, bias=False):
    torch.manual_seed(0)
    states = 3 * torch.randn(points, d_model)
    weight = torch.randn(vocab, d_model).to(dtype)
    offset = torch.randn(vocab).to(dtype) if bias else None
    parts = {} if post is None else {"post": post}
    readout = LinearReadout.plain(lambda h: h, weight, offset, **parts)
    tokens = torch.randint(0, vocab, (points, 2))
    tokens[tokens[:, 0] == tokens[:, 1], 1] = -1
    return readout, states, tokens


def capped(z):
    return 30 * torch.tanh(z / 30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("post", [None, capped])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_the_plain_pass(interpreted, calls, dtype, post, bias, monkeypatch):
    readout, states, tokens = case(dtype=dtype, post=post, bias=bias)
    found = read(readout, states, tokens)
    assert len(calls) == 2  # the proof, then the reading
    monkeypatch.setattr(room, "DEVICES", ())
    wanted = read(readout.with_precision(torch.float64), states, tokens)
    torch.testing.assert_close(found.rest, wanted.rest, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found.rest_max, wanted.rest_max, rtol=1e-6, atol=1e-5)
    assert torch.equal(found.logits, read(readout, states, tokens).logits)


@pytest.mark.parametrize(("points", "vocab"), [(1, 3), (64, 128), (65, 129), (3, 4097)])
def test_odd_shapes(interpreted, calls, points, vocab):
    readout, states, tokens = case(points, 33, vocab)
    found = read(readout, states, tokens)
    logits = (states.double() @ readout.weights()[0].double().T).scatter(
        1, tokens[:, :1], -torch.inf
    )
    for row, token in enumerate(tokens[:, 1]):
        if token >= 0:
            logits[row, token] = -torch.inf
    assert calls
    torch.testing.assert_close(found.rest, logits.logsumexp(1), rtol=1e-6, atol=1e-5)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, which interprets
def test_spread_logits_and_what_is_no_number(interpreted, calls):
    readout, states, tokens = case()
    states *= 100  # exponents far beyond what float32 holds
    states[1, 0], states[2, 0] = torch.nan, torch.inf
    found = read(readout, states, tokens)
    assert len(calls) == 2  # proved on those that are numbers
    assert found.rest[1:3].isnan().all()
    assert found.rest[[0, *range(3, len(states))]].isfinite().all()


def test_an_inaccurate_kernel_is_not_used(interpreted, monkeypatch, caplog):
    readout, states, tokens = case()
    kernel = room._kernel

    def worse(*args):
        rest, rest_max = kernel(*args)
        return rest + 1e-3, rest_max

    monkeypatch.setattr(room, "_kernel", worse)
    found = read(readout, states, tokens)
    monkeypatch.setattr(room, "DEVICES", ())
    assert torch.equal(found.rest, read(readout, states, tokens).rest)
    assert "off by 0.001" in caplog.text


def test_a_kernel_that_fails_is_not_used(monkeypatch, caplog):
    """No Triton is needed to see that: whatever goes wrong, the plain pass answers."""

    def broken(*args):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(room, "_chosen", {})
    monkeypatch.setattr(room, "FEWEST", 1)
    monkeypatch.setattr(room, "find_spec", lambda name: True)
    monkeypatch.setattr(room, "_kernel", broken)
    readout, states, tokens = case()
    wanted = read(readout, states, tokens)
    monkeypatch.setattr(room, "DEVICES", ("cpu",))
    assert torch.equal(read(readout, states, tokens).rest, wanted.rest)
    assert "no compiler" in caplog.text
    caplog.clear()
    read(readout, states, tokens)
    assert caplog.text == ""  # it is not tried again


def test_the_plain_pass_where_the_kernel_computes_something_else(monkeypatch):
    tried = []
    monkeypatch.setattr(room, "_chosen", {})
    monkeypatch.setattr(room, "DEVICES", ("cpu",))
    monkeypatch.setattr(room, "FEWEST", 1)
    monkeypatch.setattr(room, "find_spec", lambda name: True)
    monkeypatch.setattr(room, "_tried", lambda *_: tried.append(1))
    for post in (torch.sin, lambda z: z / 2):
        read(*case(post=post))
    readout, states, tokens = case()
    read(readout.with_precision(torch.float64), states, tokens)
    assert not tried
    monkeypatch.setenv("IGLENS_KERNEL", "plain")
    read(readout, states, tokens)
    assert not tried
    monkeypatch.delenv("IGLENS_KERNEL")
    room._chosen.clear()
    read(readout, states, tokens)
    assert tried


def test_a_slower_kernel_is_not_used(monkeypatch):
    monkeypatch.setattr(room, "_seconds", lambda way, *_: 1.0 + (way is room._kernel))
    readout, states, tokens = case()
    projection = readout.project(states)
    assert not room._faster(projection, tokens, lambda *_: None)
    monkeypatch.setattr(room, "_seconds", lambda way, *_: 2.0 - (way is room._kernel))
    assert room._faster(projection, tokens, lambda *_: None)


def test_soft_caps_are_found_by_what_they_do():
    assert soft_cap(capped) == 30.0
    assert soft_cap(lambda z: 50.0 * torch.tanh(z / 49.0)) is None
    assert soft_cap(lambda z: -z) is None
    assert soft_cap(lambda z: z) is None
