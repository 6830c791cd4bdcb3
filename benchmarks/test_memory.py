"""Peak memory of attribution, beyond the states and the model's own forward."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from iglens.model.embedded import cached_path

CODE = """
import re, sys, torch, iglens
from pathlib import Path

def status(key):
    text = Path("/proc/self/status").read_text()
    return int(re.search(key + r":\\s+(\\d+)", text)[1])

torch.set_num_threads(2)
decoder = iglens.Decoder.from_pretrained(sys.argv[1])
ids = decoder.encode("one two three four five six seven eight nine ten " * 40)[:201]
trace = decoder.trace(ids, range(1, 201))
iglens.attribute(decoder.trace(ids[:3], [1, 2]), diagnostics=False)  # load kernels
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
iglens.attribute(trace, diagnostics=False)
print((status("VmHWM") - before) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize("name", ["smollm2", "gemma3-270m"])
def test_peak_memory_stays_below_128_mib(name):
    if cached_path(name) is None:
        pytest.skip(f"`iglens models fetch {name}` first")
    done = subprocess.run(
        [sys.executable, "-c", CODE, name], capture_output=True, text=True, check=True
    )
    megabytes = float(re.findall(r"[\d.]+", done.stdout)[-1])
    print(f"\npeak beyond states and forward, 200 tokens, {name}: {megabytes:.0f} MiB")
    assert megabytes < 128
