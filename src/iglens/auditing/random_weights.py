"""A null without learning: the same architecture, its weights drawn anew."""

from dataclasses import replace

from ..gating import effects_without
from ..gating.stage import Progress, Stage
from ..model.reinitialised import reinitialised
from ..records.ranks import spearman_rows
from .agreement import Nulls, choices
from .prepared import Texts


def random_weights(texts: Texts, seed: int, progress: Progress) -> dict[str, Nulls]:
    """How far a random model's own numbers agree with its own effects.

    The same texts and targets, on a model of the same class and configuration.

    Args:
        texts: What is audited.
        seed: What weights are drawn from.
        progress: Told how many runs are done.

    Returns:
        By name of the number, the correlation of every text.
    """
    stage = Stage(progress, "Random weights")
    manner = replace(texts.manner, unit=texts.results[0].unit, chat=False)
    own = Texts.of(
        reinitialised(texts.decoder, seed),
        [subject.ids.tolist() for subject in texts.subjects],
        [result.targets[0] for result in texts.results],
        manner,
        stage,
    )
    stage.total = len(own.subjects) * (own.n_columns + 2)
    effects = effects_without(own.subjects, own.results, manner.kind)
    numbers = {"credit": effects.credits, "update size": own.update_sizes()}
    return {
        name: {
            with_last: spearman_rows(values[:, keep], effects.effects[:, keep])
            for with_last, keep in choices(own.results[0].layers)
        }
        for name, values in numbers.items()
    }
