"""A text of 8,192 tokens through every layer: how much memory that takes."""

import sys

import pytest
from isolated import run_python

SETUP = """
import torch, transformers as hf
from pathlib import Path
from iglens import Decoder, attribute

def start():
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    return status("VmRSS")

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith(name)) / 1024

def peak(work):
    before = start()
    result = work()
    return result, status("VmHWM") - before

torch.set_num_threads(1)
TOKENS, WIDTH, VOCAB, LAYERS = 8192, 64, 16384, 8
model = hf.LlamaForCausalLM(hf.LlamaConfig(
    hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=LAYERS,
    num_attention_heads=4, num_key_value_heads=4, vocab_size=VOCAB,
    max_position_embeddings=TOKENS, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)).eval()
decoder = Decoder(model)
seeded = torch.Generator().manual_seed(0)
ids = torch.randint(3, VOCAB, (TOKENS,), generator=seeded)
text = ids.tolist()
decoder.trace(text[:64], [1, 64])  # whatever is loaded or tried once
with torch.inference_mode():
    _, forward = peak(lambda: model(ids[None], use_cache=False, logits_to_keep=1))
MiB, ROOM = 2**20, 64
"""

FEW = """
trace, taken = peak(lambda: decoder.trace(text, [2, TOKENS // 2, TOKENS]))
assert trace.states.shape == (LAYERS + 1, 3, WIDTH)
assert taken < forward + ROOM, (taken, forward)
_, read = peak(lambda: attribute(trace, [decoder.target(7)], diagnostics=False))
assert read < ROOM, read
"""

ALL = """
trace, taken = peak(lambda: decoder.trace(text, range(1, TOKENS)))
own = (trace.states.nbytes + trace.logits.nbytes) / MiB
assert own > 500, own
assert taken < own + forward + ROOM, (taken, own, forward)
_, read = peak(lambda: attribute(trace.at(slice(0, 256)), diagnostics=False))
assert read < 1.5 * ROOM, read
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc"),
]


def test_a_few_positions_of_a_long_text_take_no_more_than_its_forward_pass():
    run_python(SETUP + FEW)


def test_all_positions_of_a_long_text_are_held_once():
    run_python(SETUP + ALL)
