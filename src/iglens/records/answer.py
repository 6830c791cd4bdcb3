"""A whole answer: the layer x token table of several tokens that follow each other."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..errors import ArgumentError
from .attribution import Attribution
from .flag import Flag
from .joint import Sharing, change, log_probabilities, shares
from .subject import Subject
from .words import Word, word_ranges

if TYPE_CHECKING:
    import pyarrow

    from ..report.charts import Chart


@dataclass(frozen=True, eq=False)
class Answer:
    """What each layer added to each token of an answer, and to all of it together.

    In log-probability the table is that of the tokens: sums over layers and sums over
    tokens are both differences of levels. In probability the level of the answer is the
    joint one, `P = prod_t p_t`, read at the same layer for every token; a layer's
    credit is the change of `P`, and `sharing` splits it over the tokens. All is
    computed from logarithms, so a joint probability of 1e-300 is as good as any.

    Attributes:
        subject: What the rows (the tokens, in order) and segments are.
        log_levels: Log-probability of every token at every point, in nats.
        log_credits: What each segment added to it.
        credits: Each token's share of what the segment added to the joint probability;
            NaN where a token's log-probability is not finite.
        log_writes: The part of `log_credits` that the block wrote; NaN if unknown.
        writes: The same of `credits`; without a lens all of it.
        sharing: "logarithmic" (every token alike, by the logarithmic mean) or
            "product" (in token order; see `Answer.of`).
    """

    subject: Subject
    log_levels: Float[np.ndarray, "tokens points"]
    log_credits: Float[np.ndarray, "tokens segments"]
    credits: Float[np.ndarray, "tokens segments"]
    log_writes: Float[np.ndarray, "tokens segments"]
    writes: Float[np.ndarray, "tokens segments"]
    sharing: Sharing

    @classmethod
    def of(cls, attribution: Attribution, sharing: Sharing = "logarithmic") -> "Answer":
        """The table of an attribution whose rows are the tokens of one answer.

        Levels are what counts: credits are their observed changes, whichever estimator
        the attribution was made with. Attribute in "log_probability" for the table in
        its own unit; from "probability" a token within 1e-16 of certain counts as
        certain, and through a lens the writes are not known.

        Args:
            attribution: One row per token at consecutive positions, each the token that
                the text has there (the last one may be another).
            sharing: "logarithmic", or "product": tokens change one after the other.
                Warning: that path is exact too, but where probabilities were small
                before, each token is weighted by the small ones still waiting, and
                nearly everything goes to the last token.

        Raises:
            ArgumentError: If the rows are not the tokens of one answer, or their unit
                does not fix a probability.
        """
        if reason := _no_answer(attribution):
            raise ArgumentError(
                f"These rows are not the tokens of one answer: {reason}"
            )
        levels = log_probabilities(attribution.levels, attribution.unit)
        starts = _starts(attribution, levels)
        with np.errstate(invalid="ignore"):
            moved, written = levels[:, 1:] - levels[:, :-1], levels[:, 1:] - starts
        subject = Subject.of(attribution)
        return cls(
            replace(subject, flags=subject.flags + _level_flags(subject, levels)),
            levels,
            np.where(np.isfinite(moved), moved, np.nan),
            shares(levels[:, :-1], levels[:, 1:], sharing),
            np.where(np.isfinite(written), written, np.nan),
            shares(starts, levels[:, 1:], sharing),
            sharing,
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """The tokens, as text."""
        return tuple(target.text for target in self.subject.targets)

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(self.texts)

    @property
    def joint_log(self) -> Float[np.ndarray, " points"]:
        """Log-probability of the whole answer at every point, in nats."""
        return self.log_levels.sum(0)

    @property
    def joint(self) -> Float[np.ndarray, " points"]:
        """Probability of the whole answer at every point."""
        with np.errstate(under="ignore"):
            return np.exp(self.joint_log)

    @property
    def joint_credits(self) -> Float[np.ndarray, " segments"]:
        """What each segment added to the joint probability."""
        log = self.joint_log
        return change(log[:-1], log[1:])

    @property
    def joint_log_credits(self) -> Float[np.ndarray, " segments"]:
        """What each segment added to its logarithm, in nats; NaN if not finite."""
        with np.errstate(invalid="ignore"):
            moved = np.diff(self.joint_log)
        return np.where(np.isfinite(moved), moved, np.nan)

    @property
    def token_credits(self) -> Float[np.ndarray, " tokens"]:
        """Each token's share of the whole change of the joint probability."""
        return self.credits.sum(1)

    @property
    def completeness(self) -> dict[str, Float[np.ndarray, " margin"]]:
        """What the margins of both tables miss by: rounding, or NaN next to a flag.

        `layers` and `total`: sums over tokens, and over the whole table, against the
        change of the joint probability. `log_layers` and `log_tokens`: both margins of
        the table in log-probability against changes of level.
        """
        joint, log = self.joint, self.log_levels
        with np.errstate(invalid="ignore"):
            return {
                "layers": self.credits.sum(0) - np.diff(joint),
                "total": np.array([self.credits.sum() - (joint[-1] - joint[0])]),
                "log_layers": self.log_credits.sum(0) - np.diff(self.joint_log),
                "log_tokens": self.log_credits.sum(1) - (log[:, -1] - log[:, 0]),
            }

    def words(self) -> tuple[Word, ...]:
        """The same table with the pieces of a word added up, for display.

        A word starts with a piece that begins with a space or line end, or follows one
        that ends in such; `Word.start` and `Word.stop` say which pieces it has.
        """
        return tuple(
            Word(
                "".join(self.texts[start:stop]),
                start,
                stop,
                self.log_levels[start:stop].sum(0),
                self.log_credits[start:stop].sum(0),
                self.credits[start:stop].sum(0),
            )
            for start, stop in word_ranges(self.texts)
        )

    def coarsen(self, layers: Iterable[int]) -> "Answer":
        """The same table with fewer layers; what is merged is summed.

        Layer credits equal those of the coarse path. So do a token's in
        log-probability, but not its shares of the joint probability: a coarse path
        would weigh the tokens at its own ends only.

        Args:
            layers: Layers to keep; the last one is always kept.

        Raises:
            ArgumentError: If a layer is not on the path.
        """
        from .answer_views import coarsened

        return coarsened(self, layers)

    def figure(self, *, unit: str = "probability", theme: str = "light") -> "Chart":
        """A chart of the table: layers down, tokens across, sums of both beside it.

        Args:
            unit: "probability" for shares of the joint one, "log_probability" for
                credits in nats.
            theme: "light" or "dark".

        Raises:
            ArgumentError: If there is no such table or theme.
        """
        from ..report.charts import answer_figure

        return answer_figure(self, unit=unit, theme=theme)

    def to_arrow(self) -> "pyarrow.Table":
        """One line per token and segment; see `iglens.records.answer_views`."""
        from .answer_views import tidy_table

        return tidy_table(self)

    def to_json(self) -> dict[str, Any]:
        """The published JSON form; NaN and infinity become null."""
        from ..storage import answer_to_json

        return answer_to_json(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Any:
        """What notebooks show: the chart, and the same in words."""
        from ..report.notebook import chart_bundle

        return chart_bundle(self)

    def __str__(self) -> str:
        """A sentence for the whole, and one line per word."""
        from ..report.answer import summary

        return summary(self)


def whole_answer(attribution: Attribution) -> Answer | None:
    """The table of a result that explains a text's answer from its first token on.

    None if the rows are something else, or a single token: then there is nothing that
    the rows do not say already.
    """
    begin = attribution.provenance.settings.get("prompt_tokens")
    if attribution.n_rows < 2 or attribution.positions[0] != begin:
        return None
    if attribution.unit == "logit" or _no_answer(attribution):
        return None
    return Answer.of(attribution)


def _no_answer(attribution: Attribution) -> str | None:
    """Why the rows are not the tokens of one answer; None if they are.

    The product of the rows' probabilities is that of the answer only if every token
    was read before the next one was predicted.
    """
    kinds = {target.kind for target in attribution.targets} - {"token"}
    if kinds:
        return f"some explain a {sorted(kinds)[0]}, not a token."
    positions = attribution.positions.tolist()
    first = positions[0] if positions else 0
    if positions != list(range(first, first + len(positions))):
        return f"their positions are {positions}, not one after the other."
    for position, target in zip(positions[:-1], attribution.targets, strict=False):
        found = int(attribution.token_ids[position])
        if target.ids != (found,):
            return (
                f"at position {position} they explain {target.text!r}, but the text "
                f"goes on with {attribution.token_texts[position]!r}."
            )
    return None


def _starts(
    attribution: Attribution, levels: Float[np.ndarray, "tokens points"]
) -> Float[np.ndarray, "tokens segments"]:
    """Log-probability where each segment starts, through the map of where it ends."""
    if attribution.lens == "logit":
        return levels[:, :-1]
    if attribution.unit == "probability":  # small starts drown next to large ends
        return np.full_like(levels[:, 1:], np.nan)
    starts = attribution.levels[:, 1:] - attribution.writes
    return log_probabilities(starts, attribution.unit)


def _level_flags(
    subject: Subject, levels: Float[np.ndarray, "tokens points"]
) -> tuple[Flag, ...]:
    """A flag for every log-probability that is not finite and has none yet."""
    known = {(flag.row, flag.point) for flag in subject.flags}
    cells = [tuple(cell) for cell in np.argwhere(~np.isfinite(levels)).tolist()]
    return tuple(
        Flag(
            row,
            point,
            "non_finite_level",
            f"The log-probability is {levels[row, point]}.",
        )
        for row, point in cells
        if (row, point) not in known
    )
