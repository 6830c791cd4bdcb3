"""The model in memory, and those that may take its place."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..errors import ArgumentError
from ..model.decoder import Decoder
from ..readout.lens import AbstractLens
from .discretion import public_name
from .limits import Limits
from .question import AskedModel
from .watch import Watch

Lenses = Mapping[str, AbstractLens]
"""Lenses besides the plain head, by the names that requests call them."""

Load = Callable[[], tuple[Decoder, Lenses]]
"""Loads a model, and what it may be read through."""


@dataclass(frozen=True)
class Face:
    """What is shown of a model, whether or not it is in memory at the moment.

    Attributes:
        model: What a saved question remembers of it.
        architecture: Its class.
        n_layers: Its blocks.
        vocab_size: Its tokens.
        labels: Whether it is a classifier.
        chat: Whether its tokenizer has a chat template.
        lenses: Names of its lenses, the plain head's first.
    """

    model: AskedModel
    architecture: str
    n_layers: int
    vocab_size: int
    labels: bool
    chat: bool
    lenses: tuple[str, ...]

    @classmethod
    def of(cls, decoder: Decoder, lenses: Lenses) -> "Face":
        """The face of a model."""
        info = decoder.info
        return cls(
            AskedModel(id=public_name(info.id), weights=info.weights_sha256),
            info.architecture,
            decoder.n_layers,
            info.vocab_size,
            decoder.labels is not None,
            bool(getattr(decoder.tokenizer, "chat_template", None)),
            ("logit", *lenses),
        )


class Served:
    """One model in memory at a time, its lenses, and how much is taken on.

    Only the thread that answers uses the model, and only it puts another in its place;
    pages are made of its `face`.

    Attributes:
        limits: Bounds on every question.
        face: What is shown of the model that answers now.
    """

    def __init__(
        self,
        decoder: Decoder,
        lenses: Lenses | None = None,
        limits: Limits | None = None,
        choices: Mapping[str, Load] | None = None,
    ) -> None:
        """Start with a model.

        Args:
            decoder: The model.
            lenses: What it may be read through.
            limits: Bounds on every question.
            choices: Models that may be asked for, by name, the first one among them;
                none for this one only.
        """
        self.limits = limits or Limits()
        self._choices = dict(choices or {})
        self._loaded: tuple[Decoder, Lenses] | None = (decoder, lenses or {})
        self.face = Face.of(*self._loaded)

    @property
    def decoder(self) -> Decoder:
        """The model; for the thread that answers."""
        assert self._loaded is not None  # `use` comes first
        return self._loaded[0]

    @property
    def lenses(self) -> Lenses:
        """What it may be read through besides the plain head."""
        assert self._loaded is not None
        return self._loaded[1]

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that may be asked for."""
        return tuple(self._choices) or (self.face.model.id,)

    def use(self, asked: AskedModel | None, watch: Watch) -> None:
        """Have the model in memory that a question is of.

        Raises:
            IGLensError: If it is none of the choices, or cannot be loaded.
        """
        if asked is not None and not _same(asked, self.face.model):
            if asked.id in self._choices and asked.id != self.face.model.id:
                self._load(asked.id, watch)
            if not _same(asked, self.face.model):
                raise self._refusal(asked)
        if self._loaded is None:  # loading another one failed
            self._load(self.face.model.id, watch)

    def _load(self, name: str, watch: Watch) -> None:
        """Let go of one model and load another: two may not fit."""
        watch.tell(f"loading {name}")
        self._loaded = None
        gc.collect()
        self._loaded = self._choices[name]()
        self.face = Face.of(*self._loaded)

    def _refusal(self, asked: AskedModel) -> ArgumentError:
        """A saved question of another model: its token ids mean other texts."""
        here = self.face.model
        return ArgumentError(
            f"This question was asked of {asked.id}; here runs {here.id}, or other "
            "weights of that name, to which the same token ids may be another text. "
            "Start the server with the other model, or type the prompt anew."
        )


def _same(asked: AskedModel, here: AskedModel) -> bool:
    """Whether a question is of this model: by its weights, if it says which."""
    if asked.weights is None:
        return asked.id == here.id
    return asked.weights == (here.weights or here.id)
