"""From a question to a result: the model's part of the server."""

from dataclasses import dataclass
from typing import Any

import torch

from ..attribution.estimator import RULES
from ..errors import ArgumentError
from ..explaining import Prepared, Reader, estimator_of, prepare
from ..model.generate import Sampling
from ..readout.lens import AbstractLens
from ..records import Attribution, Target
from .discretion import without_folders
from .question import Question
from .served import Served
from .watch import Stoppable, Watch, counted_passes

_PRECISION = {None: None, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, eq=False)
class Answering:
    """Answers questions with the model that is served.

    Attributes:
        served: The model, what it may be read through, and how much is taken on.
    """

    served: Served

    def answer(self, question: Question, watch: Watch) -> Attribution:
        """The result, without the names of folders of this machine.

        Raises:
            IGLensError: If the question does not fit, as `iglens.explain` does.
            StoppedError: If the watch says so.
        """
        self.served.use(question.model, watch)
        watch.tell("reading the prompt")
        reader = self._reader(question).check(self.served.decoder)
        with Stoppable(watch):
            asked = self._prepared(question, watch)
            watch.tell(f"reading {len(asked.trace.positions)} positions at every layer")
            result = reader.of(
                self.served.decoder,
                asked,
                diagnostics=question.diagnostics,
                strict=question.strict,
            )
        return without_folders(result)

    def _reader(self, question: Question) -> Reader:
        """How states are read."""
        rule = next(rule for rule in RULES if rule == question.rule)
        return Reader(
            question.unit,
            question.baseline,
            self._lens(question.lens),
            estimator_of(question.estimator, question.n_steps, rule),
            _PRECISION[question.precision],
            by=question.by,
            top=question.top,
            tolerance=question.tolerance,
        )

    def _lens(self, name: str) -> str | AbstractLens:
        """A lens by its name, and never by a file's."""
        if name == "logit":
            return name
        if name in self.served.lenses:
            return self.served.lenses[name]
        known = ", ".join(["logit", *self.served.lenses])
        raise ArgumentError(f"`lens` is {name!r}; this server has {known}.")

    def _prepared(self, question: Question, watch: Watch) -> Prepared:
        """The text run through the model, every pass announced."""
        given = self._checked(question)
        new = question.max_new_tokens if self._generates(question) else 0

        def tell(passes: int) -> None:
            if passes <= new:
                watch.tell(f"token {passes} of up to {new}", passes - 1, new + 2)
            else:
                watch.tell("running the text", new + 1 if new else None, new + 2)

        with counted_passes(self.served.decoder.model, tell):
            return prepare(
                self.served.decoder, **given, layers=question.layers, by=question.by
            )

    def _generates(self, question: Question) -> bool:
        """Whether the model goes on with the text by itself."""
        asked = question.target is not None or question.answer is not None
        return not asked and question.positions in ("answer", "all")

    def _checked(self, question: Question) -> dict[str, Any]:
        """Arguments of `prepare`, within the limits.

        Raises:
            ArgumentError: If they are not.
        """
        if question.max_new_tokens > self.served.limits.new_tokens:
            raise ArgumentError(
                f"`max_new_tokens` is {question.max_new_tokens}; this server generates "
                f"at most {self.served.limits.new_tokens}."
            )
        prompt: Any = question.prompt
        if isinstance(prompt, list):
            prompt = [m if isinstance(m, int) else m.model_dump() for m in prompt]
        words: dict[str, Any] = {
            "chat": question.chat,
            "system": question.system,
            "special_tokens": question.special_tokens,
        }
        ids = self.served.decoder.encode(prompt, **words)
        n_tokens = len(ids)
        if question.answer is not None and self.served.decoder.labels is None:
            n_tokens += len(self.served.decoder.encode_answer(ids, question.answer))
        self._check_length(n_tokens)
        return {
            "prompt": prompt,
            "target": self._targets(question.target),
            "contrast": self._target(question.contrast),
            "answer": question.answer,
            "positions": question.positions,
            "max_new_tokens": question.max_new_tokens,
            "sampling": _sampling(question),
            **words,
        }

    def _check_length(self, n_tokens: int) -> None:
        """Refuse a text that takes too long."""
        most = self.served.limits.tokens
        if n_tokens > most:
            raise ArgumentError(
                f"The text has {n_tokens} tokens; this server takes at most {most}. "
                "Shorten it, or start `iglens serve` with a larger `--max-tokens`."
            )

    def _targets(self, target: Any) -> Any:
        """Targets as `prepare` takes them."""
        if isinstance(target, list):
            return [self._target(item) for item in target]
        return target

    def _target(self, item: str | int | list[int] | None) -> Any:
        """One of them; ids in a list are a set."""
        if not isinstance(item, list):
            return item
        parts = [self.served.decoder.target(token) for token in dict.fromkeys(item)]
        ids = tuple(part.ids[0] for part in parts)
        return Target(ids, "|".join(part.text for part in parts))


def _sampling(question: Question) -> Sampling | None:
    """How to sample, if at all."""
    given = (question.temperature, question.top_p, question.seed)
    if question.sample:
        return Sampling(*given)
    if given != (1.0, 1.0, 0):
        raise ArgumentError(
            "`temperature`, `top_p` and `seed` need `sample`; without it the "
            "continuation is greedy."
        )
    return None
