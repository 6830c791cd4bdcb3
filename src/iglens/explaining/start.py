"""Baselines that take a model, a file or another prompt to know."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..attribution.baseline import (
    BASELINES,
    Baseline,
    BaselineLike,
    check_baseline,
)
from ..errors import ArgumentError
from ..model.decoder import Decoder
from ..trace import Trace
from .lenses.text import documents_in
from .mean_state import CorpusMean, corpus_mean, load_corpus_mean

StartLike = str | Tensor | np.ndarray | CorpusMean | Baseline
"""A baseline by name ("corpus:FILE" and "prompt:TEXT" among them), a vector, or one
that was prepared."""


def check_start(baseline: object) -> None:
    """Refuse what can be no baseline, before the model runs.

    Raises:
        ArgumentError: If a name is unknown, or there are none.
        ArgumentTypeError: If something is neither a name nor a vector.
    """
    if isinstance(baseline, list | tuple):
        if not baseline:
            raise ArgumentError("`baseline` is an empty list; name at least one.")
        for item in baseline:
            check_start(item)
        return
    if isinstance(baseline, np.ndarray | CorpusMean):
        return
    if not isinstance(baseline, str):
        check_baseline(baseline)
    elif not (baseline in BASELINES or baseline.startswith(("corpus:", "prompt:"))):
        raise ArgumentError(
            f"`baseline` is {baseline!r}; known are {', '.join(BASELINES)}, "
            "corpus:FILE, prompt:TEXT, or a vector (vector:FILE.npy on the command "
            "line)."
        )


def resolve_starts(
    decoder: Decoder, baseline: StartLike | Sequence[StartLike], trace: Trace
) -> list[BaselineLike]:
    """What `attribute` takes, from what `explain` takes.

    Args:
        decoder: The model.
        baseline: One baseline, or several to average.
        trace: The text that is explained.

    Raises:
        ArgumentError: If a prompt is too short.
        ArtifactError: If a file is no corpus mean, or one of another model.
    """
    if isinstance(baseline, str | Tensor | np.ndarray | CorpusMean | Baseline):
        return [_start(decoder, baseline, trace)]
    return [_start(decoder, item, trace) for item in baseline]


def start_names(baseline: StartLike | Sequence[StartLike]) -> list[str | None]:
    """The names that stand for baselines in a record; None where there is none.

    Files are named in full, so that they are found from any folder.
    """
    if isinstance(baseline, str | Tensor | np.ndarray | CorpusMean | Baseline):
        return [_name(baseline)]
    return [_name(item) for item in baseline]


def _name(baseline: StartLike) -> str | None:
    """The name of one baseline."""
    if not isinstance(baseline, str):
        return None
    if baseline.startswith("corpus:"):
        path = Path(baseline.removeprefix("corpus:"))
        return f"corpus:{path.expanduser().resolve()}"
    return baseline


def _start(decoder: Decoder, baseline: StartLike, trace: Trace) -> BaselineLike:
    """One baseline."""
    if isinstance(baseline, np.ndarray):
        return torch.from_numpy(baseline)
    if isinstance(baseline, str) and baseline.startswith("prompt:"):
        return _other_prompt(decoder, baseline.removeprefix("prompt:"), trace)
    if isinstance(baseline, str) and baseline.startswith("corpus:"):
        baseline = _from_file(decoder, Path(baseline.removeprefix("corpus:")))
    if isinstance(baseline, CorpusMean):
        baseline.check(decoder)
        mean = torch.from_numpy(baseline.mean).to(trace.states)
        return Baseline("corpus", mean.expand_as(trace.states[0]))
    return baseline


def _from_file(decoder: Decoder, path: Path) -> CorpusMean:
    """A saved mean, or that of a file of texts, taken now."""
    if path.suffix != ".json":  # which is what `CorpusMean.save` writes
        return corpus_mean(decoder, documents_in(path), source=path.name)
    return load_corpus_mean(path)


def _other_prompt(decoder: Decoder, text: str, trace: Trace) -> Baseline:
    """The embeddings at the same positions of another prompt."""
    ids = decoder.encode(text)
    indices = trace.positions - 1
    if int(indices.max()) >= len(ids):
        raise ArgumentError(
            f"The baseline prompt has {len(ids)} token(s), but position "
            f"{int(trace.positions.max())} is predicted by token "
            f"{int(indices.max())}. Give a prompt at least as long as the text, or "
            "explain fewer positions."
        )
    (states,) = decoder.states([ids], layers=[0])
    chosen = states[0][indices.to(states.device)]
    return Baseline("prompt", chosen.to(trace.states))
