"""Peak memory of attribution, beyond the states and the model's own forward pass."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ..results import Measurement

TOKENS = 200

HANDED_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""What has glibc return freed memory at once, so that a peak is of what was held."""

CODE = """
import re, sys, torch, iglens
from pathlib import Path

def status(key):
    text = Path("/proc/self/status").read_text()
    return int(re.search(key + r":\\s+(\\d+)", text)[1])

name, tokens, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(threads)
decoder = iglens.Decoder.from_pretrained(name)
ids = decoder.encode("one two three four five six seven eight nine ten " * 40)
trace = decoder.trace(ids[: tokens + 1], range(1, tokens + 1))
iglens.attribute(decoder.trace(ids[:3], [1, 2]), diagnostics=False)  # load kernels
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
iglens.attribute(trace, diagnostics=False)
print((status("VmHWM") - before) / 1024)
"""


def peak(model: str, threads: int) -> Iterator[Measurement]:
    """Of a map of some hundred tokens, in a process of its own; on Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        return
    done = subprocess.run(
        [sys.executable, "-c", CODE, model, str(TOKENS), str(threads)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | HANDED_BACK,
    )
    yield Measurement(
        "memory",
        "iglens",
        model=model,
        tokens=TOKENS,
        value=float(done.stdout.split()[-1]),
        unit="MiB",
    )
