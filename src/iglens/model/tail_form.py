"""A traced tail as JSON has it: names of modules, operators and plain numbers."""

from typing import Any

import torch
from torch import nn

from .tail import Operation, Step, Tail

_PLAIN = (bool, int, float, type(None))


def tail_form(tail: Tail, model: nn.Module) -> dict[str, Any] | None:
    """The tail in words and numbers; None if something in it is neither."""
    names = {module: name for name, module in model.named_modules()}
    if tail.head not in names:
        return None
    before = [_step_form(step, names) for step in tail.before]
    after = [_step_form(step, names) for step in tail.after]
    if None in before or None in after:
        return None
    return {"before": before, "head": names[tail.head], "after": after}


def tail_of(form: dict[str, Any], model: nn.Module) -> Tail:
    """The tail of a form, on a model.

    Raises:
        KeyError: If the model has no such module.
        AttributeError: If PyTorch has no such operator.
    """
    modules = dict(model.named_modules())
    after = [_step(each, modules) for each in form["after"]]
    return Tail(
        tuple(_step(each, modules) for each in form["before"]),
        modules[form["head"]],
        tuple(step for step in after if isinstance(step, Operation)),
    )


def _step_form(step: Step, names: dict[nn.Module, str]) -> dict[str, Any] | None:
    """One step."""
    if not isinstance(step, Operation):
        return {"module": names[step]} if step in names else None
    name = getattr(step.function, "__name__", "")
    numbers = (*step.before, *step.after)
    keywords = {key: _keyword(value) for key, value in step.keywords.items()}
    plain = all(type(number) in _PLAIN for number in numbers)
    if not plain or None in keywords.values() or not _is(step.function, name):
        return None
    return {
        "operator": name,
        "before": list(step.before),
        "after": list(step.after),
        "keywords": keywords,
        "is_cast": step.is_cast,
    }


def _is(function: Any, name: str) -> bool:
    """Whether the name leads back to the operator."""
    return getattr(torch.ops.aten, name, None) is function


def _keyword(value: Any) -> list[Any] | None:
    """A keyword's value: a number, or a dtype by name."""
    if isinstance(value, torch.dtype):
        return ["dtype", str(value).removeprefix("torch.")]
    return ["plain", value] if type(value) in _PLAIN else None


def _step(form: dict[str, Any], modules: dict[str, nn.Module]) -> Step:
    """One step of a form."""
    if "module" in form:
        return modules[form["module"]]
    return Operation(
        getattr(torch.ops.aten, form["operator"]),
        tuple(form["before"]),
        tuple(form["after"]),
        {key: _value(*pair) for key, pair in form["keywords"].items()},
        bool(form["is_cast"]),
    )


def _value(kind: str, value: Any) -> Any:
    """A keyword's value of its form."""
    return getattr(torch, value) if kind == "dtype" else value
