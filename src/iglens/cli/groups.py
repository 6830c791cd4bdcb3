"""Options that come in groups, so that commands share them without repeating them.

A command names a group as one parameter, typed with one of the classes below;
`grouped` shows Typer the fields in its place, and hands the command the whole.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import typer

from . import options as o
from .loading import (
    AcceptLicence,
    Attention,
    Device,
    DeviceMap,
    Dtype,
    Revision,
    TrustRemoteCode,
    load_decoder,
)
from .parse import (
    parse_baselines,
    parse_by,
    parse_precision,
    parse_rule,
    parse_sampling,
    parse_unit,
)

if TYPE_CHECKING:
    from ..explaining import Reader
    from ..model.decoder import Decoder
    from ..model.generate import Sampling


@dataclass(frozen=True)
class Asked:
    """What is explained: all that `prepare` takes besides prompt and layers."""

    target: o.Target = None
    contrast: o.Contrast = None
    answer: o.Answer = None
    max_new_tokens: o.MaxNewTokens = 8
    sample: o.Sample = False
    temperature: o.Temperature = 1.0
    top_p: o.TopP = 1.0
    seed: o.Seed = 0
    chat: o.Chat = False
    system: o.System = None
    special_tokens: o.SpecialTokens = True
    positions: o.Positions = "answer"

    @property
    def sampling(self) -> "Sampling | None":
        """How to sample, if at all."""
        return parse_sampling(self.sample, self.temperature, self.top_p, self.seed)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `prepare`, by name.

        Raises:
            ArgumentError: If an option needs another.
        """
        return {
            "target": self.target,
            "contrast": self.contrast,
            "answer": self.answer,
            "max_new_tokens": self.max_new_tokens,
            "sampling": self.sampling,
            "positions": self.positions,
            **self.encoding,
        }

    @property
    def encoding(self) -> dict[str, Any]:
        """How text becomes tokens, by name."""
        return {
            "chat": self.chat,
            "system": self.system,
            "special_tokens": self.special_tokens,
        }


@dataclass(frozen=True)
class Read:
    """How states are read."""

    layers: o.Layers = "all"
    by: o.By = "layer"
    top: o.Top = 10
    unit: o.Unit = None
    baseline: o.Baseline = None
    lens: o.Lens = "logit"
    estimator: o.Estimator = "observed"
    n_steps: o.NSteps = 64
    rule: o.Rule = "midpoint"
    precision: o.Precision = None
    diagnostics: o.Diagnostics = None
    tolerance: o.Tolerance = 2.0**-24
    strict: o.Strict = True

    @property
    def reader(self) -> "Reader":
        """The reader that this describes, its lens not yet loaded.

        Raises:
            ArgumentError: If a name is unknown.
        """
        from ..explaining import Reader, estimator_of

        credit = estimator_of(self.estimator, self.n_steps, parse_rule(self.rule))
        return Reader(
            parse_unit(self.unit),
            parse_baselines(self.baseline),
            self.lens,
            credit,
            parse_precision(self.precision),
            by=parse_by(self.by),
            top=self.top,
            tolerance=self.tolerance,
        )


@dataclass(frozen=True)
class Loading:
    """How a model is loaded."""

    dtype: Dtype = None
    device: Device = None
    device_map: DeviceMap = None
    revision: Revision = None
    attn_implementation: Attention = None
    trust_remote_code: TrustRemoteCode = False
    accept_licence: AcceptLicence = False

    def decoder(self, model: str | None, *, quiet: bool) -> "Decoder":
        """The model by its name, fetched first if it is an embedded one."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return load_decoder(model, **given, quiet=quiet)


GROUPS = (Asked, Read, Loading)

_KIND = inspect.Parameter.KEYWORD_ONLY

Typed = frozenset[str]
"""Parameters that were given on the command line, not left at their defaults."""


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command for Typer, its groups taken apart into their options.

    A parameter of type `Typed` gets the names of those that the user gave.
    """
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups = {p.name: p.annotation for p in parameters if p.annotation in GROUPS}
    typed = [p.name for p in parameters if p.annotation == Typed]
    flat = [inspect.Parameter("ctx", _KIND, annotation=typer.Context)]
    for parameter in parameters:
        if parameter.name in groups:
            flat += _options(groups[parameter.name])
        elif parameter.name not in typed:
            flat.append(parameter.replace(kind=_KIND))

    def flattened(ctx: Any, **given: Any) -> None:  # of a class that Typer keeps apart
        """Put the groups together and run the command."""
        chosen = frozenset(
            name
            for name in given
            if getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"
        )
        for name, group in groups.items():
            own = [field.name for field in fields(group)]
            given[name] = group(**{field: given.pop(field) for field in own})
        command(**given, **dict.fromkeys(typed, chosen))

    flattened.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    flattened.__annotations__ = {"ctx": typer.Context}
    flattened.__doc__ = command.__doc__
    return flattened


def _options(group: type) -> list[inspect.Parameter]:
    """The fields of a group, as parameters."""
    return [
        inspect.Parameter(f.name, _KIND, default=f.default, annotation=f.type)
        for f in fields(group)
    ]
