"""Is one model read exactly? Judged against forwards that know nothing of readouts."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from iglens import Decoder
from iglens.errors import IGLensError
from iglens.model.capture import capture
from iglens.model.declaration import Declaration
from iglens.readout.fidelity import total_variation

TOKENS = 13
LIMIT = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Total variation that counts as equal, of probabilities."""


@dataclass(frozen=True)
class Proof:
    """What was found for one model in one dtype.

    Attributes:
        status: "exact", "refused", "wrong" or "failed".
        readout: "explicit" or "injected", if there is one.
        postprocess: What follows the head, in words.
        stack: Name of the module that holds the blocks.
        layers: Number of block calls.
        missed: Largest total variation against the two truths.
        reason: Why it was refused or failed.
    """

    status: str
    readout: str = ""
    postprocess: str = ""
    stack: str = ""
    layers: int = 0
    missed: float = 0.0
    reason: str = ""


def prove(model: nn.Module, declaration: Declaration | None = None) -> Proof:
    """Verify a model as a user would, and check the result on another text."""
    try:
        decoder = Decoder(model, declaration=declaration)
    except IGLensError as error:
        return Proof("refused", reason=str(error))
    stream, readout = decoder.verified.stream, decoder.readout
    missed = _missed(decoder)
    limit = LIMIT[next(p.dtype for p in model.parameters() if p.is_floating_point())]
    return Proof(
        "exact" if missed <= limit else "wrong",
        readout.kind,
        readout.postprocess,
        stream.container,
        stream.n_layers,
        missed,
    )


def _missed(decoder: Decoder) -> float:
    """How far the readout is from the model, for its last states and random ones."""
    stream, runner = decoder.verified.stream, decoder._runner
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, decoder.readout.vocab_size, (1, TOKENS), generator=generator)
    every = torch.arange(TOKENS)
    taken = capture(runner, stream, ids, every, (0, stream.n_layers))
    last = taken.states[-1]
    random = torch.randn(last.shape, generator=generator).to(last) * last.std()
    truth = _replaced(decoder, ids, random)
    return max(
        float(total_variation(decoder.readout.logits(last), runner(ids)[0]).max()),
        float(total_variation(decoder.readout.logits(random), truth).max()),
    )


def _replaced(decoder: Decoder, ids: Tensor, vectors: Tensor) -> Tensor:
    """Logits of a full forward in which only the last block's output is replaced."""
    from iglens.model.verify import last_output_replaced

    with last_output_replaced(decoder.verified.stream, vectors):
        return decoder._runner(ids)[0]
