"""How states are read: everything a question says besides the text and the target."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..attribution import (
    AbstractEstimator,
    Observed,
    Scalar,
    attribute_averaged,
    attribute_many,
    flows,
    interaction,
    promotion,
    sensitivity,
)
from ..attribution.path import Level, check_level, check_top
from ..attribution.rows import Explained, Targets
from ..errors import ArgumentError
from ..model.decoder import Decoder
from ..model.weights import weights_sha256
from ..readout import TOLERANCE
from ..readout.lens import AbstractLens
from ..readout.pruning import check_tolerance
from ..records import Attribution, Flow, Promotion, Target, Unit, check_unit
from ..records.ensemble import Sensitivity
from ..records.interaction import Interaction
from ..stages import stage
from .lenses.file import lens_file, load_lens
from .plan import Prepared
from .start import StartLike, check_start, resolve_starts, start_names


@dataclass(frozen=True, eq=False)
class Reader:
    """Unit, baseline, lens and estimator: what is done with states once they are there.

    Attributes:
        unit: Unit of levels and credits; None for the model's usual one.
        baseline: Where paths start; several are averaged.
        lens: What states are read through: a name, a file, or a lens.
        estimator: The rule of credit.
        precision: Dtype of the readout; None for float32 at least.
        lens_path: File or folder the lens was read from; None if it was none.
        by: How far down credits go; the trace must have been made for it.
        top: Parts to keep per row and segment below "sublayer"; None for all.
        tolerance: Probability below which points may be finished early; 0 for none.
    """

    unit: Unit | None = None
    baseline: StartLike | Sequence[StartLike] = "embedding"
    lens: str | Path | AbstractLens = "logit"
    estimator: AbstractEstimator = field(default_factory=Observed)
    precision: torch.dtype | None = None
    lens_path: Path | None = None
    by: Level = "layer"
    top: int | None = None
    tolerance: float = TOLERANCE

    def check(self, decoder: Decoder) -> "Reader":
        """The same with its lens loaded; whatever cannot be is refused here.

        Raises:
            IGLensError: If a name is unknown, or the lens is another model's.
        """
        if self.unit is not None:
            check_unit(self.unit)
        check_level(self.by)
        check_top(self.top)
        check_tolerance(self.tolerance)
        unit = decoder.unit(self.unit)
        check_start(self.baseline)
        if isinstance(self.lens, AbstractLens):
            return replace(self, unit=unit)
        path = lens_file(decoder, self.lens)
        lens = load_lens(decoder, self.lens)
        return replace(self, unit=unit, lens=lens, lens_path=path)

    @stage("readout")
    def of(
        self,
        decoder: Decoder,
        asked: Prepared,
        *,
        diagnostics: bool | None = None,
        strict: bool = True,
    ) -> Attribution:
        """The attribution of what was asked; see `iglens.attribute`."""
        ready = self.check(decoder)
        assert isinstance(ready.lens, AbstractLens)  # loaded just now
        found = attribute_averaged(
            asked.trace,
            asked.targets,
            baselines=resolve_starts(decoder, ready.baseline, asked.trace),
            by=ready.by,
            top=ready.top,
            lens=ready.lens,
            unit=ready.unit,
            estimator=ready.estimator,
            diagnostics=diagnostics,
            tolerance=ready.tolerance,
            precision=ready.precision,
            strict=strict,
        )
        return _signed(found, ready)

    @stage("readout")
    def of_many(
        self,
        decoder: Decoder,
        asked: Sequence[Prepared],
        *,
        diagnostics: bool | None = False,
        strict: bool = True,
    ) -> list[Attribution]:
        """What `of` gives of one after the other, read in one pass where that can be.

        Several baselines are averaged text by text.

        Raises:
            IGLensError: If one of them cannot be explained.
        """
        ready = self.check(decoder)
        assert isinstance(ready.lens, AbstractLens)  # loaded just now
        starts = [resolve_starts(decoder, ready.baseline, a.trace) for a in asked]
        if len(starts[0]) > 1:
            return [
                ready.of(decoder, each, diagnostics=diagnostics, strict=strict)
                for each in asked
            ]
        found = attribute_many(
            [each.trace for each in asked],
            [each.targets for each in asked],
            baselines=[start for (start,) in starts],
            by=ready.by,
            top=ready.top,
            lens=ready.lens,
            unit=ready.unit,
            estimator=ready.estimator,
            diagnostics=diagnostics,
            tolerance=ready.tolerance,
            precision=ready.precision,
            strict=strict,
        )
        return [_signed(each, ready) for each in found]

    @stage("readout")
    def sensitivity(self, decoder: Decoder, asked: Prepared) -> Sensitivity:
        """What the choice of baseline changes: the usual ones and this one's."""
        own = resolve_starts(decoder, self.baseline, asked.trace)
        known = [start for start in own if not isinstance(start, str)]
        ready = self.check(decoder)
        assert isinstance(ready.lens, AbstractLens)  # loaded just now
        return sensitivity(
            asked.trace,
            asked.targets,
            baselines=["embedding", "zero", "mean", *known],
            lens=ready.lens,
            unit=ready.unit,
            estimator=ready.estimator,
            diagnostics=False,
            tolerance=0.0,  # what moves is to be rounding alone
            precision=ready.precision,
        )

    @stage("readout")
    def flows(
        self, decoder: Decoder, asked: Prepared, *, top: int = 5, strict: bool = True
    ) -> Flow:
        """Who gained and lost at each layer; see `iglens.attribution.flows`.

        Of a contrast, its first side: what it is against is one of the rivals.

        Raises:
            ArgumentError: If there are several baselines.
        """
        given = self._single_path(decoder, asked)
        targets = _first_sides(asked.targets)
        return flows(asked.trace, targets, top=top, strict=strict, **given)

    @stage("readout")
    def promotion(
        self, decoder: Decoder, asked: Prepared, *, strict: bool = True
    ) -> Promotion:
        """Credits in log-odds, split in two ways; see `iglens.attribution.promotion`.

        Of a contrast, its first side.

        Raises:
            ArgumentError: If there are several baselines.
        """
        given = self._single_path(decoder, asked)
        targets = _first_sides(asked.targets)
        return promotion(asked.trace, targets, strict=strict, **given)

    @stage("readout")
    def interaction(
        self, decoder: Decoder, asked: Prepared, *, strict: bool = True
    ) -> Interaction:
        """What parts of blocks change only together.

        See `iglens.attribution.interaction`.

        Raises:
            ArgumentError: If there are several baselines, or the trace has no parts.
        """
        given = self._single_path(decoder, asked)
        unit = decoder.unit(self.unit)
        targets = asked.targets
        return interaction(asked.trace, targets, unit=unit, strict=strict, **given)

    def _single_path(self, decoder: Decoder, asked: Prepared) -> dict[str, Any]:
        """Arguments that say which states are read, where they must be of one path."""
        starts = resolve_starts(decoder, self.baseline, asked.trace)
        if len(starts) > 1:
            raise ArgumentError(
                f"`baseline` names {len(starts)} baselines to average; rivals, "
                "promotion and interaction follow one path. Choose one."
            )
        ready = self.check(decoder)
        return {"baseline": starts[0], "lens": ready.lens, "precision": ready.precision}


def _first_sides(targets: Targets) -> Targets:
    """The targets, contrasts without what they are against."""
    if targets is None or isinstance(targets, Scalar):
        return targets
    if isinstance(targets, Target):
        return targets.alone
    return [_first_side(item) for item in targets]


def _first_side(item: Explained | tuple[int, Explained]) -> Any:
    """The same of one."""
    match item:
        case Target():
            return item.alone
        case (position, Target() as target):
            return position, target.alone
        case _:
            return item


def _signed(result: Attribution, reader: Reader) -> Attribution:
    """The result with what else it must know of itself: where baselines and lens are.

    And how many parts were kept, since no more can be told to be the largest.
    """
    path = reader.lens_path
    settings: dict[str, Any] = {
        "baseline": start_names(reader.baseline),
        "lens": None if path is None else str(path.resolve()),
        "lens_sha256": None if path is None else weights_sha256(path),
    }
    if result.components is not None:
        settings["top"] = reader.top
    provenance = result.provenance
    return replace(
        result,
        provenance=replace(provenance, settings=provenance.settings | settings),
    )
