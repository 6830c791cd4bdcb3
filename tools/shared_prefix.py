"""What running a common prefix once would save: `python tools/shared_prefix.py`.

Sixteen texts that begin alike, on the default model: all of each in one batch, against
the prefix once and the rest of each with its KV cache. Prints the ratio of processor
times, without and with the readout, and how far the distributions are apart.
"""

import statistics
import time
from collections.abc import Callable

import torch

from iglens import Decoder
from iglens.attribution import attribute_many

TEXTS, SIZES = 16, ((6, 6), (40, 20), (200, 20))


def seconds(work: Callable[[], object]) -> float:
    """Median processor time."""
    times = []
    for _ in range(5):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def measure(decoder: Decoder, shared: int, own: int) -> str:
    """One line on one size of texts."""
    model = decoder.model
    seeded = torch.Generator().manual_seed(0)
    prefix = torch.randint(10, 40_000, (1, shared), generator=seeded)
    rest = torch.randint(10, 40_000, (TEXTS, own), generator=seeded)
    whole = torch.cat([prefix.expand(TEXTS, -1), rest], 1)

    def plain() -> torch.Tensor:
        return model(whole, use_cache=False, logits_to_keep=1).logits

    def cached() -> torch.Tensor:
        cache = model(prefix, use_cache=True, logits_to_keep=1).past_key_values
        cache.batch_repeat_interleave(TEXTS)
        mask = torch.ones(whole.shape)
        given = {"past_key_values": cache, "attention_mask": mask}
        return model(rest, **given, logits_to_keep=1).logits

    with torch.inference_mode():
        moved = (plain().softmax(-1) - cached().softmax(-1)).abs().sum(-1).max() / 2
        ways = seconds(plain), seconds(cached)
    traces = decoder.trace_many(whole.tolist(), [[shared + own]] * TEXTS)
    targets = [[decoder.target(5)]] * TEXTS
    readout = seconds(lambda: attribute_many(traces, targets, diagnostics=False))
    forward = ways[0] / ways[1]
    both = (ways[0] + readout) / (ways[1] + readout)
    return (
        f"{shared} shared tokens, {own} own: forward {forward:.2f} x, with the readout "
        f"{both:.2f} x; total variation {float(moved):.1g}, tolerance "
        f"{decoder.verified.tolerance.total_variation:.1g}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    loaded = Decoder.from_pretrained("smollm2")
    for sizes in SIZES:
        print(measure(loaded, *sizes), flush=True)
