"""The product by either library, and how one is chosen."""

import pytest
import torch

from iglens.readout import LinearReadout, read
from iglens.readout import product as room
from iglens.readout.product import onednn, product, uses_onednn

CPUINFO = "processor\t: 0\nvendor_id\t: {}\nmodel name\t: something vendor_id: no\n"


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    """Chosen in every test, and forgotten."""
    monkeypatch.delenv("IGLENS_KERNEL", raising=False)
    uses_onednn.cache_clear()
    yield
    uses_onednn.cache_clear()


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A processor as it says who made it, and what torch found it capable of."""

    def pretend(maker="AuthenticAMD", capability="AVX512", mkl=True):
        path = tmp_path / "cpuinfo"
        path.write_text(CPUINFO.format(maker))
        monkeypatch.setattr(room, "_CPUINFO", path)
        monkeypatch.setattr(
            torch.backends.cpu, "get_cpu_capability", lambda: capability
        )
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)

    return pretend


needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


@needs_onednn
@pytest.mark.parametrize("points", [0, 1, 7, 300])
@pytest.mark.parametrize("width", [1, 5, 257])
@pytest.mark.parametrize("d_model", [1, 31, 576])
def test_both_are_the_product(points, width, d_model):
    torch.manual_seed(0)
    states = torch.randn(points, d_model)
    weight = torch.randn(2 * width, d_model)[width:]
    wanted = states.double() @ weight.double().T
    size = states.double().abs() @ weight.double().abs().T
    for found in (onednn(states, weight), torch.mm(states, weight.T)):
        assert found.shape == wanted.shape
        assert found.dtype == torch.float32
        # d_model roundings of half an eps each is the most that a sum can be off
        assert bool(((found - wanted).abs() <= d_model * 2**-24 * size).all())


@needs_onednn
def test_strides_do_not_matter():
    torch.manual_seed(0)
    states, weight = torch.randn(9, 64)[:, ::2], torch.randn(32, 17).T
    wanted = (states.double() @ weight.double().T).float()
    torch.testing.assert_close(onednn(states, weight), wanted)


@needs_onednn
def test_what_is_no_number_stays_none():
    states, weight = torch.ones(40, 64), torch.ones(50, 64)
    states[3, 4], states[5, 6], weight[7, 8] = torch.nan, torch.inf, -torch.inf
    found, wanted = onednn(states, weight), states @ weight.T
    torch.testing.assert_close(found, wanted, equal_nan=True, rtol=0, atol=1e-4)


@needs_onednn
@pytest.mark.parametrize(
    ("maker", "capability", "mkl", "chosen"),
    [
        ("AuthenticAMD", "AVX512", True, True),
        ("GenuineIntel", "AVX512", True, False),  # MKL is at home there
        ("AuthenticAMD", "AVX2", True, False),  # nothing idle
        ("AuthenticAMD", "AVX512", False, False),  # another library, not measured
    ],
)
def test_the_processor_decides(machine, maker, capability, mkl, chosen):
    machine(maker, capability, mkl)
    assert uses_onednn() is chosen


def test_a_word_keeps_to_the_plain_one(machine, monkeypatch):
    machine()
    monkeypatch.setenv("IGLENS_KERNEL", "plain")
    assert not uses_onednn()


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError])
def test_an_operator_that_is_gone_or_fails_is_not_used(machine, monkeypatch, error):
    def failing(*_):
        raise error("no such operator")

    machine()
    monkeypatch.setattr(room, "onednn", failing)
    assert not uses_onednn()
    states, weight = torch.randn(4, 8), torch.randn(5, 8)
    out = torch.empty(4, 5)
    assert product(states, weight, out) is out
    assert torch.equal(out, torch.mm(states, weight.T))


def test_an_operator_that_is_wrong_is_not_used(machine, monkeypatch):
    machine()
    monkeypatch.setattr(
        room, "onednn", lambda states, weight: (states @ weight.T).bfloat16()
    )
    assert not uses_onednn()


def test_other_precisions_are_torchs(machine, monkeypatch):
    machine()
    monkeypatch.setattr(room, "uses_onednn", lambda: True)
    monkeypatch.setattr(room, "onednn", lambda *_: pytest.fail("for float32 alone"))
    states, weight = torch.randn(4, 8).double(), torch.randn(5, 8).double()
    assert torch.equal(product(states, weight), states @ weight.T)


@needs_onednn
@pytest.mark.parametrize("chosen", [True, False])
def test_a_reading_is_that_in_float64(monkeypatch, chosen):
    monkeypatch.setattr(room, "uses_onednn", lambda: chosen)
    torch.manual_seed(0)
    norm, unembed = torch.nn.RMSNorm(96), torch.randn(3000, 96) / 3
    states, tokens = torch.randn(700, 96), torch.randint(3000, (700, 1))
    readout = LinearReadout.plain(norm, unembed, torch.randn(3000))
    found = read(readout, states, tokens).log_probabilities
    unembed_64, bias_64 = (w.double() for w in readout.weights())
    logits = norm(states).double() @ unembed_64.T + bias_64
    wanted = logits.log_softmax(1).gather(1, tokens)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
