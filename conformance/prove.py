"""Is one model read exactly? Judged against forwards that know nothing of readouts."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from iglens import Decoder
from iglens.errors import IGLensError
from iglens.model.capture import capture
from iglens.model.declaration import Declaration
from iglens.model.discover import arbitrary_tokens
from iglens.readout.measure import total_variation

from .inside import described, missed_inside
from .opened import opened

TOKENS = 13
LIMITS = {torch.float32: 1e-5, torch.float64: 1e-10}
"""Total variation that counts as equal, by the dtype of the weights."""


@dataclass(frozen=True)
class Proof:
    """What was found for one model in one dtype.

    Attributes:
        status: "exact", "refused", "wrong" (accepted, and not what the model gives),
            "unbuilt" or "failed" (an error that is no refusal).
        readout: "explicit" or "injected", if there is one.
        postprocess: What follows the head, in words.
        stack: Name of the module that holds the blocks.
        layers: Number of block calls.
        missed: Largest total variation against the truths.
        power: Tolerances by which the state before the last one misses.
        reason: Why it was refused, or failed.
        parts: Kinds of its blocks with their parts, in float32.
        unsplit: Why blocks are not split.
        misplaced: By how much a state between two parts fails to decide its block.
        opened: What inside the parts credits can be shared over, in float64.
        unsummed: What such shares miss of the credit, relative to the largest one.
    """

    status: str
    readout: str = ""
    postprocess: str = ""
    stack: str = ""
    layers: int = 0
    missed: float = 0.0
    power: float = 0.0
    reason: str = ""
    parts: str = ""
    unsplit: str = ""
    misplaced: float = 0.0
    opened: str = ""
    unsummed: float = 0.0


def prove(model: nn.Module, declaration: Declaration | None = None) -> Proof:
    """Verify a model as a user would, and check the result on another text."""
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    try:
        decoder = Decoder(model, declaration=declaration)
    except IGLensError as error:
        return Proof("refused", reason=str(error))
    missed = _missed(decoder, declaration or Declaration())
    stream, readout = decoder.verified.stream, decoder.readout
    single = dtype == torch.float32
    if single:  # many models route or attend in float32, whatever their weights are
        missed = max(missed, missed_together(decoder))
    inside, unsummed = ("", 0.0) if single else opened(decoder)
    return Proof(
        "exact" if missed <= LIMITS[dtype] else "wrong",
        readout.kind,
        readout.postprocess,
        stream.container,
        stream.n_layers,
        missed,
        decoder.verified.power,
        parts=described(decoder) if single else "",
        unsplit="; ".join(decoder.sublayers.reasons) if single else "",
        misplaced=missed_inside(decoder) if single else 0.0,
        opened=inside,
        unsummed=unsummed,
    )


@torch.no_grad()
def _missed(decoder: Decoder, declaration: Declaration) -> float:
    """How far the readout is from the model, for its last states and random ones."""
    stream, model = decoder.verified.stream, decoder.model
    ids = arbitrary_tokens(model, (1, TOKENS)).flip(1)
    given = dict((declaration.inputs or _ids_alone)(ids))
    if "use_cache" in inspect.signature(model.forward).parameters:
        given["use_cache"] = False
    truth = _logits(model, given)
    places = torch.arange(TOKENS)[-len(truth) :]  # a classifier's is the last alone
    taken = capture(decoder._runner, stream, ids, places, (0, stream.n_layers))
    last = taken.states[-1]
    generator = torch.Generator().manual_seed(7)
    random = torch.randn(TOKENS, stream.width, generator=generator).to(last)
    random *= last.std()
    found = [_gap(decoder.readout.logits(last), truth)]
    truth = _replaced(decoder, given, random)
    return max(*found, _gap(decoder.readout.logits(random[places]), truth))


@torch.no_grad()
def missed_together(decoder: Decoder) -> float:
    """How far texts that begin alike, traced together, are from each of them alone."""
    if decoder.labels is not None or decoder.declaration.inputs is not None:
        return 0.0  # run whole, one after the other or not
    ids = arbitrary_tokens(decoder.model, (1, 24))[0].tolist()
    texts = [ids[:10] + ids[10 + at : 13 + at + at % 2] for at in range(6)]
    last = [[len(text)] for text in texts]
    together = decoder.trace_many(texts, last)
    alone = [decoder.trace(*each) for each in zip(texts, last, strict=True)]
    return max(
        _gap(trace.logits, own.logits)
        for trace, own in zip(together, alone, strict=True)
    )


def _gap(ours: Tensor, own: Tensor) -> float:
    """Total variation; of single logits the difference, relative if they are large."""
    if own.shape[-1] > 1:
        return float(total_variation(ours, own).max())
    return float((ours - own).abs().max() / own.abs().max().clamp(min=1))


def _ids_alone(ids: Tensor) -> dict[str, Any]:
    """What most models are called with."""
    return {"input_ids": ids}


def _logits(model: nn.Module, given: Any) -> Tensor:
    """What the model gives for the one text, called as anybody would."""
    output = model(**given)
    logits = output["logits"] if "logits" in output else output[0]
    return logits[:1] if logits.dim() == 2 else logits[0, -TOKENS:]


def _replaced(decoder: Decoder, given: Any, vectors: Tensor) -> Tensor:
    """Logits of a full forward in which only the last block's output is replaced.

    Where that output is, or begins with, a tensor of (texts, tokens, width), it is
    replaced here without asking what discovery found.
    """
    stream = decoder.verified.stream
    last, calls = stream.blocks[-1], stream.blocks.count(stream.blocks[-1])
    seen = 0

    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen < calls:
            return None
        first = output if isinstance(output, Tensor) else output[0]
        if first.shape == (1, *vectors.shape):
            new = vectors[None].clone()
            return new if first is output else (new, *output[1:])
        rows = stream.with_rows(stream.given(output), 0, vectors)
        return stream.put(output, rows)

    handle = last.register_forward_hook(hook)
    try:
        return _logits(decoder.model, given)
    finally:
        handle.remove()
