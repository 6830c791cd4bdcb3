"""The text of a fit, and which documents are for what."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...errors import ArgumentError
from ...model.decoder import Decoder
from ...model.loading.child import Progress, silent
from .text import Corpus, encoded, generated

PER_DIMENSION = 8
"""Default tokens of a fit per dimension of the residual stream."""

LEAST_TOKENS = 4096
"""And at least so many."""

HELD_OUT = 0.1
"""Share of documents the lens is judged on, and another that chooses the penalty."""


@dataclass(frozen=True)
class Parts:
    """The parts of a text, whole documents each.

    Attributes:
        fit: What the translators are fitted on.
        choice: What the penalty is chosen on, and then fitted on too.
        held_out: What the lens is judged on.
        seed: Of the text, if it was generated, and of the parts.
    """

    fit: Corpus
    choice: Corpus
    held_out: Corpus
    seed: int

    @property
    def learned(self) -> Corpus:
        """Everything but what is held out."""
        documents = self.fit.documents + self.choice.documents
        return Corpus(documents, self.fit.source)

    @property
    def settings(self) -> dict[str, object]:
        """What a record says of them."""
        return {
            "text": self.fit.source,
            "seed": self.seed,
            "tokens": self.learned.tokens,
            "documents": len(self.learned.documents),
            "text_sha256": self.learned.sha256,
            "held_out_tokens": self.held_out.tokens,
            "held_out_documents": len(self.held_out.documents),
        }


def gather(
    decoder: Decoder,
    texts: Iterable[str | Sequence[int]] | None = None,
    *,
    source: str = "given texts",
    tokens: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Parts:
    """The text of a fit, in parts.

    Raises:
        ArgumentError: If it is too little.
    """
    d_model = decoder.readout.d_model
    wanted = tokens or max(LEAST_TOKENS, PER_DIMENSION * d_model)
    if texts is None:
        corpus = generated(decoder, wanted, seed, progress)
    else:
        corpus = encoded(decoder, texts, wanted, source, progress)
    _check_enough(corpus.tokens, corpus, d_model)
    rest, held_out = corpus.split(HELD_OUT, seed)
    fit, choice = rest.split(HELD_OUT, seed + 1)
    parts = Parts(fit, choice, held_out, seed)
    _check_enough(parts.learned.tokens, corpus, d_model)
    return parts


def _check_enough(tokens: int, corpus: Corpus, d_model: int) -> None:
    """Refuse fewer states than dimensions."""
    if tokens <= d_model:
        raise ArgumentError(
            f"Too little text: {corpus.tokens} tokens in {len(corpus.documents)} "
            f"document(s) ({corpus.source}) leave {tokens} to fit on, and {d_model} "
            f"dimensions need more than {d_model}; {PER_DIMENSION * d_model} are a "
            "good number. Give more text, or a larger `tokens`."
        )
