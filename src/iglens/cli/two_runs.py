"""The runs that `iglens diff` compares, and how one follows the other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .groups import Asked, Loading, Read, Typed
from .parse import parse_baselines, parse_prompt
from .recorded import as_recorded

if TYPE_CHECKING:
    from ..model.decoder import Decoder
    from ..records import Attribution


@dataclass(frozen=True)
class Run:
    """A model, and how prompts are run on it.

    Attributes:
        model: Name of the model; None for the default.
        loading: How it is loaded.
        asked: What is explained.
        read: How it is read.
        quiet: Whether to say nothing of loading.
    """

    model: str | None
    loading: Loading
    asked: Asked
    read: Read
    quiet: bool

    def decoder(self) -> "Decoder":
        """The loaded model."""
        return self.loading.decoder(self.model, quiet=self.quiet)


def run_both(
    run: Run, other: Run | None, prompt: str, second: str | None
) -> "tuple[Attribution, Attribution]":
    """A prompt explained, and the same asked of another prompt or another model.

    Args:
        run: The first run.
        other: The second model; None for the same one.
        prompt: The first prompt.
        second: The second prompt; None for the same tokens.

    Raises:
        IGLensError: If an option does not fit, or one of the runs is refused.
    """
    text = parse_prompt(prompt)
    following = None if second is None else parse_prompt(second)
    asked, reader = run.asked.arguments, run.read.reader
    decoder = run.decoder()
    from ..explaining import explain_like, prepare

    ready = reader.check(decoder)
    prepared = prepare(decoder, text, layers=run.read.layers, by=reader.by, **asked)
    first = ready.of(
        decoder, prepared, diagnostics=run.read.diagnostics, strict=run.read.strict
    )
    if other is not None:
        del decoder, prepared, ready  # one model in memory at a time
        decoder = other.decoder()
    found = explain_like(
        decoder,
        following,
        first,
        **run.asked.encoding,
        baseline=reader.baseline,
        lens=reader.lens,
    )
    return first, found


def run_like(
    run: Run, prompt: str, result: "Attribution", typed: Typed
) -> "Attribution":
    """A prompt explained as a saved result was; what was typed goes before the file.

    Raises:
        IGLensError: If the file does not say enough, or the run is refused.
    """
    text = parse_prompt(prompt)
    model, loading = as_recorded(result, run.model, run.loading)
    encoding, known = run.asked.encoding, result.provenance.settings
    if "chat" not in typed and known.get("chat"):
        encoding["chat"] = True
        encoding["system"] = encoding["system"] or known.get("system")
    decoder = loading.decoder(model, quiet=run.quiet)
    from ..explaining import explain_like

    return explain_like(
        decoder,
        text,
        result,
        **encoding,
        baseline=parse_baselines(run.read.baseline) if "baseline" in typed else None,
        lens=run.read.lens if "lens" in typed else None,
    )
