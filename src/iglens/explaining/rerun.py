"""A saved result run again from its token ids."""

from collections.abc import Sequence
from pathlib import Path

from ..attribution import Scalar
from ..model.decoder import Decoder
from ..readout.lens import AbstractLens
from ..records import Attribution
from ..records.difference import Difference
from ..records.replay import Replay
from .again import run_again
from .recorded import recorded_model, recorded_reader, recorded_rows
from .start import StartLike


def replay(
    result: Attribution,
    decoder: Decoder | None = None,
    *,
    baseline: StartLike | Sequence[StartLike] | None = None,
    lens: str | Path | AbstractLens | None = None,
    scalars: Sequence[Scalar] = (),
) -> Replay:
    """Run a saved result again, from its token ids, and say what moved.

    The text is never tokenised anew and nothing is generated: same tokens, positions,
    targets, layers, unit, baseline, lens, estimator and precision of the readout.

    Args:
        result: What `Attribution.load` gave.
        decoder: The model; None to load the one the result names, as it was loaded:
            by hub id and commit, folder, file or embedded name, in its dtype and with
            its attention.
        baseline: Where paths start, if the result only knows that it was a vector.
        lens: What to read through, if the result does not know its file.
        scalars: The scalars of the user's own among the targets.

    Returns:
        Both results and their difference, level by level.

    Raises:
        ArgumentError: If the result does not say enough to be run again, or the model
            is of another depth.
        ModelLoadError: If the model it names is not there.
        FidelityError: If the readout is not the model's own any more.
    """
    reader = recorded_reader(result, baseline, lens)
    rows = recorded_rows(result, scalars)
    decoder = decoder or _loaded(result)
    ids = result.token_ids.tolist()
    known = result.provenance.settings
    settings = {k: v for k, v in known.items() if k not in ("attn_implementation",)}
    found = run_again(
        decoder,
        result,
        reader,
        ids,
        rows,
        prompt=result.provenance.prompt,
        settings=settings,
    )
    return Replay(Difference(result, found))


def _loaded(result: Attribution) -> Decoder:
    """The model a result names, as it was loaded."""
    model = recorded_model(result)
    return Decoder.from_pretrained(
        model.name,
        revision=model.revision,
        dtype=model.dtype,
        attn_implementation=model.attn_implementation,
    )
