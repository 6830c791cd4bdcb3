"""Fitting a lens: in closed form, and polished if that is wanted."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import ArgumentError
from ...model.decoder import Decoder
from ...model.loading.child import Progress, silent
from ...readout.lens import AffineLens
from ...readout.unembedding import unembedding_sha256
from .accumulate import MEMORY
from .checkpoint import Saver, read_checkpoint
from .gradient import differentiable
from .parts import Parts, gather
from .polish import Polish, Polisher
from .ridge import check_penalty
from .solve import fit_on, fitted_layers, info_of
from .text import check_distribution


@dataclass(frozen=True)
class Fitted:
    """A lens, and the text behind it.

    Attributes:
        lens: The lens.
        parts: What it was fitted on, and what was held out.
    """

    lens: AffineLens
    parts: Parts


def fit_lens(
    decoder: Decoder,
    texts: Iterable[str | Sequence[int]] | None = None,
    *,
    tokens: int | None = None,
    seed: int = 0,
    ridge: float | None = None,
    layers: str | Sequence[int] = "all",
    polish: Polish | None = None,
    checkpoint: str | Path | None = None,
    memory_budget: int = MEMORY,
    progress: Progress = silent,
) -> AffineLens:
    """A translator per layer: ridge regression of what the later layers add.

    `T_l(h) = h + A_l h + b_l`, with `A_l` and `b_l` as derived in the module
    `iglens.explaining.lenses.ridge`, from float64 moments over all tokens but the first
    of each piece of text. A tenth of the documents is held out.

    Args:
        decoder: The model.
        texts: Documents as text or token ids; None for text that the model writes.
        tokens: Tokens to read; None for 8 per dimension, at least 4096.
        seed: Of the text that the model writes, and of what is held out.
        ridge: Penalty relative to the mean variance of the states; None to choose it
            by the divergence on another tenth of the documents.
        layers: Layers that get a translator: "all", "1,5,30", a slice, or numbers.
        polish: How to go on by gradient descent on the divergence; None to stop at the
            closed form.
        checkpoint: File for the state of polishing. If it is there from an earlier
            call with the same arguments, that is continued, to the same result.
        memory_budget: Bytes for moments, `16 d_model²` per layer. Where they do not
            fit, the model reads the text once for every group of layers that does.
        progress: Told how far it is.

    Returns:
        The lens, in float32.

    Raises:
        ArgumentError: If there is too little text (says how much is needed) or an
            argument does not fit.
        ArtifactError: If the checkpoint is one of other arguments.
        NonFiniteError: If states are not finite (names the layer), or polishing
            diverges.
        UnsupportedModelError: If polishing is wanted and the head has no gradient.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 20}
        >>> config = GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)
        >>> lens = fit_lens(Decoder(GPT2LMHeadModel(config)), tokens=300)
        >>> lens.name, lens.layers, lens.n_layers
        ('ridge', (0, 1), 2)
    """
    return fit(
        decoder,
        texts,
        tokens=tokens,
        seed=seed,
        ridge=ridge,
        layers=layers,
        polish=polish,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        memory_budget=memory_budget,
        progress=progress,
    ).lens


def fit(
    decoder: Decoder,
    texts: Iterable[str | Sequence[int]] | None = None,
    *,
    source: str = "given texts",
    tokens: int | None = None,
    seed: int = 0,
    ridge: float | None = None,
    layers: str | Sequence[int] = "all",
    polish: Polish | None = None,
    checkpoint: Path | None = None,
    memory_budget: int = MEMORY,
    progress: Progress = silent,
) -> Fitted:
    """As `fit_lens`, with the text; `source` says where that comes from."""
    check_distribution(decoder)
    chosen = fitted_layers(decoder, layers)  # before the model runs
    if ridge is not None:
        check_penalty(ridge)
    if polish is None and checkpoint is not None:
        raise ArgumentError("`checkpoint` is for polishing: pass `polish` too.")

    def gathered() -> Parts:
        return gather(
            decoder, texts, source=source, tokens=tokens, seed=seed, progress=progress
        )

    known = None if texts is None else gathered()

    def begin() -> Fitted:
        parts = known or gathered()
        lens = fit_on(
            decoder,
            parts,
            chosen,
            ridge=ridge,
            memory_budget=memory_budget,
            progress=progress,
        )
        return Fitted(lens, parts)

    if polish is None:
        return begin()
    differentiable(decoder.readout)  # before the long run
    asked = {
        "unembed_sha256": unembedding_sha256(decoder.readout),
        "weights_sha256": decoder.info.weights_sha256,
        "text": None if known is None else known.learned.sha256,
        "tokens": tokens,
        "seed": seed,
        "ridge": ridge,
        "layers": list(chosen),
        "polish": asdict(polish),
    }
    return _polished(decoder, begin, polish, asked, checkpoint, progress)


def _polished(
    decoder: Decoder,
    begin: Callable[[], Fitted],
    polish: Polish,
    asked: Mapping[str, object],
    checkpoint: Path | None,
    progress: Progress,
) -> Fitted:
    """A polished lens, from the closed form or from where an earlier call was left."""
    saved = None if checkpoint is None else read_checkpoint(checkpoint, asked)
    begun = begin() if saved is None else Fitted(saved.lens, saved.parts)
    polisher = Polisher(decoder, begun.lens, polish)
    if saved is not None:
        polisher.resume(saved.step, saved.velocity)
    save = None
    if checkpoint is not None:
        save = Saver(checkpoint, asked, polisher, begun.lens, begun.parts)
    polisher.run(begun.parts.learned.pieces, progress, save)
    assert begun.lens.info is not None  # the closed form has it
    settings = {**begun.lens.info.settings, "polish": asdict(polish)}
    info = info_of(decoder, "ridge, polished", settings)
    return Fitted(polisher.lens(begun.lens, info), begun.parts)
