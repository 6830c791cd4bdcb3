"""What a neighbour's script is asked, and what it answers; runs in its environment."""

import gc
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from ..pairs import Turns, Way, in_turns
from ..product import BLOCKINGS, bare_product, best_blocking, rows_per_turn

FEW, MANY = 3, 50
"""Rounds of what cannot be cut into stretches, on texts of more tokens than this."""

LONGEST = 3
"""Turns of the bare product that such a call may take."""

Found = dict[str, Any]
"""A measurement, as `benchmarks.results.Measurement` has it."""


@dataclass(frozen=True, eq=False)
class Task:
    """A model, a text, and how often things are timed.

    Attributes:
        model: Its name.
        folder: Where its weights lie.
        ids: Token ids of the text, one more than are explained at most.
        sizes: How many tokens are explained.
        turn: Operations in a turn of the bare product.
        pairs: Rounds.
        threads: Of torch.
    """

    model: str
    folder: str
    ids: list[int]
    sizes: list[int]
    turn: float
    pairs: int
    threads: int

    def inputs(self, n_tokens: int) -> Tensor:
        """Token ids that the model is run on."""
        return torch.tensor([self.ids[:n_tokens]])

    def targets(self, n_tokens: int) -> Tensor:
        """The token that follows each of them."""
        return torch.tensor(self.ids[1 : n_tokens + 1])

    @cached_property
    def loaded(self) -> Any:
        """The model of Transformers, in float32."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        return model.eval()

    def states(self, n_tokens: int, model: Any = None) -> Tensor:
        """Residual states before the final norm: points x tokens x d_model."""
        model = model or self.loaded
        kept: list[Tensor] = []

        def before(module: Any, args: Any, kwargs: Any) -> None:
            kept.append((args[0] if args else kwargs["hidden_states"])[0])

        inner = model.model
        hooks = [
            module.register_forward_pre_hook(before, with_kwargs=True)
            for module in (*inner.layers, inner.norm)
        ]
        try:
            with torch.no_grad():
                model(self.inputs(n_tokens))
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(kept)

    def at_once(self, n_points: int) -> int:
        """Tokens whose map takes one turn."""
        weight = self.loaded.lm_head.weight
        return rows_per_turn(self.turn, n_points, weight.shape[1], weight.shape[0])

    def product(self, states: Tensor) -> Way:
        """The bare product of the same shapes."""
        weight = self.loaded.lm_head.weight.detach()
        with torch.no_grad():
            normed = self.loaded.model.norm(states.flatten(0, 1))
            blocking = self._blocking(normed, weight)
        return torch.no_grad()(lambda: bare_product(normed, weight, blocking))

    def _blocking(self, normed: Tensor, weight: Tensor) -> tuple[int, int]:
        """The fastest, found once."""
        if "blocking" not in self.__dict__:
            self.__dict__["blocking"] = best_blocking(normed[:2048], weight, BLOCKINGS)
        found: tuple[int, int] = self.__dict__["blocking"]
        return found

    def hindrance(self, n_tokens: int, held: float) -> str:
        """Why a call that cannot be cut into stretches is not timed; empty if it is.

        Args:
            n_tokens: Length of its text.
            held: How many times it holds the logits of one layer at once, about.
        """
        gc.collect()
        vocab_size = self.loaded.lm_head.weight.shape[0]
        needed = held * 4 * n_tokens * vocab_size
        if needed > 0.5 * psutil.virtual_memory().available:
            return f"it holds {needed / 2**30:.0f} GiB of logits"
        n_points = self.loaded.config.num_hidden_layers + 1
        turns = n_tokens / self.at_once(n_points)
        if n_tokens > MANY and turns > LONGEST:
            return f"its call would take as long as {turns:.0f} turns"
        return ""


def measured(
    case: str,
    turns: Turns,
    what: str,
    task: Task,
    n_tokens: int,
    *,
    counted: float = 1.0,
    against: str = "product",
    note: str = "",
) -> Found:
    """One way by the bare product."""
    return {
        "case": case,
        "what": what,
        "against": against,
        "model": task.model,
        "tokens": n_tokens,
        "ratios": turns.ratios(what, against, counted),
        "seconds": {name: turns.seconds[name] for name in (what, against)},
        "note": note,
    }


def lacking(case: str, what: str, task: Task, n_tokens: int, reason: str) -> Found:
    """What was not measured, and why."""
    return {
        "case": case,
        "what": what,
        "against": "product",
        "model": task.model,
        "tokens": n_tokens,
        "note": f"not measured: {reason}",
    }


def error_of(what: str, task: Task, n_tokens: int, error: float) -> Found:
    """The largest difference from float64."""
    return {
        "case": "accuracy",
        "what": what,
        "model": task.model,
        "tokens": n_tokens,
        "value": error,
        "unit": "probability",
    }


def rounds(ways: Mapping[str, Way], count: int) -> Turns:
    """The same ways in every round."""
    return in_turns([ways] * count)


def without_forward(
    name: str, task: Task, n_tokens: int, call: Way, forward: Way, states: Tensor
) -> Iterator[Found]:
    """A call that runs the model: whole, and less a forward pass of the same round."""
    ways = {"call": call, "forward": forward, "product": task.product(states)}
    long = n_tokens > MANY
    every = [ways] * (min(FEW, task.pairs) if long else task.pairs)
    turns = in_turns(every, warm=not long).less("call", "forward", name)
    note = "its call less a forward pass"
    yield measured("map", turns, name, task, n_tokens, note=note)
    yield {**measured("whole", turns, "call", task, n_tokens), "what": name}


def answer(
    name: str, packages: tuple[str, ...], measure: Callable[[Task], Iterator[Found]]
) -> None:
    """Read the task named first, measure, write the answer to what is named second."""
    asked, told = (Path(word) for word in sys.argv[1:3])
    task = Task(**json.loads(asked.read_text(encoding="utf-8")))
    torch.set_num_threads(task.threads)
    found = []
    for each in measure(task):
        found.append(each)
        print(name, each["case"], each["model"], each["tokens"], flush=True)
        gc.collect()
    versions = {package: version(package) for package in packages}
    told.write_text(json.dumps({"versions": versions, "measurements": found}))
