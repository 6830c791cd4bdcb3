"""Peak memory of attribution, beyond the states and the model's own forward.

And of tracing, beside what `iglens doctor` estimates.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cases.memory import peak
from iglens.model.loading.embedded import cached_path

LINUX = Path("/proc/self/clear_refs").exists()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.embedded,
    pytest.mark.skipif(not LINUX, reason="needs Linux"),
]


@pytest.mark.parametrize("name", ["smollm2", "gemma3-270m"])
def test_peak_memory_stays_below_64_mib(name):
    if cached_path(name) is None:
        pytest.skip(f"`iglens models fetch {name}` first")
    (found,) = peak(name, threads=2)
    assert 0 < found.median < 64


INSIDE = """
import re, sys, torch, iglens
from pathlib import Path

def status(key):
    text = Path("/proc/self/status").read_text()
    return int(re.search(key + r":\\s+(\\d+)", text)[1]) / 1024

torch.set_num_threads(2)
decoder, tokens = iglens.Decoder.from_pretrained("smollm2"), int(sys.argv[1])
ids = decoder.encode("one two three four five six seven eight nine ten " * 60)[:tokens]
trace = decoder.trace(ids, range(1, tokens), by="source")
given = {"by": "source", "top": 5, "diagnostics": False, "layers": range(27, 31)}
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
inside = iglens.attribute(trace, **given).components
peak = status("VmHWM") - before
print(peak, inside.tokens.nbytes / 2**20)
"""


@pytest.mark.parametrize("tokens", [128, 512])
def test_memory_below_the_layer_does_not_grow_with_the_parts(tokens):
    """Sixteen times as many (head, token) pairs per segment: what is held is the same.

    Of the result itself only the table of tokens is as large as the question; it is
    joined from pieces, so twice of it is taken off.
    """
    if cached_path("smollm2") is None:
        pytest.skip("`iglens models fetch smollm2` first")
    kept = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
    done = subprocess.run(
        [sys.executable, "-c", INSIDE, str(tokens)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | kept,
    )
    peak, table = (float(size) for size in done.stdout.split()[-2:])
    print(
        f"\n{tokens} tokens by source: {peak:.0f} MiB at most, of which the table of "
        f"tokens twice {2 * table:.0f}"
    )
    assert peak - 2 * table < 256


ESTIMATE = """
import re, sys, torch, iglens
from pathlib import Path
from iglens.examining.memory import memory_estimate

def status(key):
    text = Path("/proc/self/status").read_text()
    return int(re.search(key + r":\\s+(\\d+)", text)[1]) * 1024

def peak(run):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    result = run()
    return result, status("VmHWM") - before

torch.set_num_threads(2)
decoder, tokens = iglens.Decoder.from_pretrained(sys.argv[1]), int(sys.argv[2])
ids = decoder.encode("one two three four five six seven eight nine ten " * 60)[:tokens]
iglens.attribute(decoder.trace(ids[:3], [1, 2]), diagnostics=False)  # load kernels
estimate = memory_estimate(decoder, tokens)
trace, tracing = peak(lambda: decoder.trace(ids, range(1, tokens)))
_, reading = peak(lambda: iglens.attribute(trace, diagnostics=False))
reading += trace.states.nbytes + trace.logits.nbytes
print(tracing, estimate.tracing_bytes, reading, estimate.reading_bytes)
"""


@pytest.mark.parametrize("name", ["smollm2", "gemma3-270m"])
@pytest.mark.parametrize("tokens", [128, 512])
def test_the_doctors_estimate_is_near_the_peak(name, tokens):
    if cached_path(name) is None:
        pytest.skip(f"`iglens models fetch {name}` first")
    # freed blocks go back at once, so that the second peak is not hidden in the first
    kept = {"MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "4194304"}
    done = subprocess.run(
        [sys.executable, "-c", ESTIMATE, name, str(tokens)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | kept,
    )
    found = [int(size) / 1e6 for size in done.stdout.split()[-4:]]
    print(
        f"\n{name}, {tokens} tokens: tracing {found[0]:.0f} MB (estimated "
        f"{found[1]:.0f}), reading {found[2]:.0f} MB (estimated {found[3]:.0f})"
    )
    # of a short text the model's own activations, which are not counted, weigh more
    assert 0.8 * found[1] < found[0] < 1.25 * found[1] + 16
    assert 0.6 < found[2] / found[3] < 1.25
