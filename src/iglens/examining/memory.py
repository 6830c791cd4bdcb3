"""How much memory a text of some length takes: an estimate from the code that decides.

Numbers of states, rows and columns come from the functions that choose them when a
text is explained; only the bytes of what is then held are added up here.
"""

from ..attribution.chunk import points_at_once
from ..attribution.path import row_chunks
from ..model.decoder import Decoder
from ..readout import MEMORY_BUDGET, AbstractReadout, LinearReadout
from ..readout.fidelity import row_bytes, rows_at_once
from ..readout.streamed import block_width
from ..records.findings import MemoryEstimate


def memory_estimate(
    decoder: Decoder, n_tokens: int, memory_budget: int = MEMORY_BUDGET
) -> MemoryEstimate:
    """Blocks and bytes for a text, every prediction within it explained.

    Args:
        decoder: The model.
        n_tokens: Length of the text.
        memory_budget: Bytes that reading may hold, as in `attribute`.
    """
    readout, n_points = decoder.readout, decoder.n_layers + 1
    every = decoder.declaration.causal and decoder.labels is None
    n_rows = max(1, n_tokens - 1) if every else 1
    at_once = points_at_once(readout, memory_budget)
    chunks = list(row_chunks(n_rows, n_points, at_once))
    per_pass = chunks[0].stop - chunks[0].start
    within = readout.points_within(memory_budget)
    points = min(per_pass * n_points, within)
    width = block_width(readout, points, memory_budget)
    size = readout.dtype.itemsize
    states = n_points * n_rows * readout.d_model * size
    logits = n_rows * readout.vocab_size * size
    checked = min(n_rows, rows_at_once(readout, memory_budget)) * row_bytes(readout)
    reading = max(checked, pass_bytes(readout, points, width))
    return MemoryEstimate(
        n_tokens=n_tokens,
        n_points=n_points,
        rows_per_pass=per_pass,
        n_passes=sum(-(-(c.stop - c.start) * n_points // within) for c in chunks),
        block_width=width,
        n_blocks=-(-readout.vocab_size // width),
        states_bytes=states,
        logits_bytes=logits,
        # both are written once, where they stay
        tracing_bytes=states + logits,
        reading_bytes=states + logits + reading,
    )


def pass_bytes(readout: AbstractReadout, points: int, width: int) -> int:
    """Bytes that one pass over the vocabulary holds, about.

    First the wanted tokens' logits: three arrays of states in float64, beside the
    normed ones. Then the blocks: one of logits, two more where something is done to
    them after the head, and the block's weights where they are converted. A head that
    is called gives whole rows in its own dtype, which are then converted.
    """
    size, d_model = readout.precision.itemsize, readout.d_model
    normed = points * d_model * size
    wanted = 3 * points * d_model * 8
    after = 1 if readout.postprocess == "identity" else 3
    block = after * points * width * size
    if not isinstance(readout, LinearReadout):
        whole = points * readout.vocab_size
        return whole * (size + readout.dtype.itemsize) + block
    if readout.dtype != readout.precision:
        block += width * d_model * size
    return normed + max(wanted, block)
