"""The fused kernel: product, softcap, largest logit and sum in one pass, on a GPU.

Logits never reach memory: every program keeps the running largest and sum of its rows
over its share of the vocabulary, and only those are written (as in online softmax,
Milakov and Gimelshein 2018, arXiv:1805.02867). Imported only where Triton is.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

ROWS, COLUMNS, DEPTH = 64, 128, 32
"""States, tokens and numbers of a state that a program multiplies at once."""

SHARES = 16
"""Parts of the vocabulary that are summed by different programs."""


@triton.jit  # type: ignore[untyped-decorator]
def _normalise(  # type: ignore[no-untyped-def]  # types are Triton's
    normed, weight, bias, tokens, largest_out, sum_out,
    points, vocab, d_model, share, cap,
    SLOTS: tl.constexpr, BIASED: tl.constexpr, CAPPED: tl.constexpr,
    PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Largest logit and sum of exponentials of some rows over a share of the tokens."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    first = tl.program_id(1) * share
    last = tl.minimum(first + share, vocab)
    here = rows < points
    largest = tl.full((BM,), float("-inf"), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    for start in range(first, last, BN):
        columns = start + tl.arange(0, BN)
        there = columns < last
        logits = tl.zeros((BM, BN), tl.float32)
        for deep in range(0, d_model, BK):
            inner = deep + tl.arange(0, BK)
            inside = inner < d_model
            state = tl.load(
                normed + rows.to(tl.int64)[:, None] * d_model + inner[None, :],
                mask=here[:, None] & inside[None, :], other=0.0,
            )  # fmt: skip
            head = tl.load(
                weight + columns.to(tl.int64)[None, :] * d_model + inner[:, None],
                mask=there[None, :] & inside[:, None], other=0.0,
            ).to(tl.float32)  # fmt: skip
            logits = tl.dot(state, head, logits, input_precision=PRECISION)
        if BIASED:
            offset = tl.load(bias + columns, mask=there, other=0.0).to(tl.float32)
            logits += offset[None, :]
        if CAPPED:
            grown = tl.exp(-2.0 * tl.abs(logits / cap))  # tanh without overflow
            size = cap * (1.0 - grown) / (1.0 + grown)
            logits = tl.where(logits < 0, -size, size)
        logits = tl.where(there[None, :], logits, float("-inf"))
        for slot in tl.static_range(SLOTS):
            token = tl.load(tokens + rows * SLOTS + slot, mask=here, other=-1)
            wanted = columns[None, :] == token[:, None]
            logits = tl.where(wanted, float("-inf"), logits)
        highest = tl.maximum(largest, tl.max(logits, axis=1))
        shift = tl.where(highest == float("-inf"), 0.0, highest)
        total = total * tl.exp(largest - shift)
        total += tl.sum(tl.exp(logits - shift[:, None]), axis=1)
        largest = highest
    at = tl.program_id(1) * points + rows
    tl.store(largest_out + at, largest, mask=here)
    tl.store(sum_out + at, total, mask=here)


def normalise(
    normed: Float[Tensor, "points d_model"],
    weight: Float[Tensor, "vocab d_model"],
    bias: Float[Tensor, " vocab"] | None,
    tokens: Int[Tensor, "points slots"],
    cap: float | None,
    precision: str = "tf32x3",
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    """Log-sum-exp and maximum of all logits but the wanted tokens'.

    Args:
        normed: States after the final norm, float32.
        weight: The unembedding, in any floating dtype.
        bias: Its bias, if it has one.
        tokens: Token ids per point that are left out; -1 marks an unused slot.
        cap: What logits are soft-capped at, `cap tanh(z / cap)`; None for not.
        precision: Of the products: "tf32x3" splits every float32 in three, for tensor
            cores; "ieee" is float32 itself.

    Returns:
        Float64; NaN where a logit is NaN or plus infinity.
    """
    points, d_model = normed.shape
    share = COLUMNS * triton.cdiv(triton.cdiv(len(weight), COLUMNS), SHARES)
    shares = triton.cdiv(len(weight), share)
    largest = normed.new_empty((shares, points))
    total = torch.empty_like(largest)
    _normalise[(triton.cdiv(points, ROWS), shares)](
        normed.contiguous(), weight.contiguous(), weight if bias is None else bias,
        tokens.contiguous(), largest, total,
        points, len(weight), d_model, share, cap or 1.0,
        SLOTS=tokens.shape[1], BIASED=bias is not None, CAPPED=cap is not None,
        PRECISION=precision, BM=ROWS, BN=COLUMNS, BK=DEPTH,
    )  # fmt: skip
    largest, total = largest.double(), total.double()
    spoiled = total.isnan().any(0)
    rest = (largest + total.log()).logsumexp(0).masked_fill(spoiled, torch.nan)
    return rest, largest.amax(0).masked_fill(spoiled, torch.nan)
