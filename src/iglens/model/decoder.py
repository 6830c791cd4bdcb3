"""The model adapter: any decoder of Transformers as traces, verified."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..attribution.path import Level
from ..errors import ArgumentError, ArgumentTypeError
from ..readout import AbstractReadout
from ..readout.measure import meaningful_unit
from ..records import ModelInfo, Provenance, Target, Unit
from ..trace import Trace
from .capture import states_of
from .checks import check_values
from .declaration import Declaration
from .generate import Sampling, continuation
from .injected import model_lock
from .inside.opened import Inside
from .inside.split import find_sublayers
from .inside.sublayers import Sublayers
from .kinds import refuse_other_kinds
from .labels import Labels, labels_of
from .loading.load import load_model
from .noise import keeps_texts_apart
from .pooling import n_tokens, skipped_padding
from .proof import proof
from .runner import text_config
from .source import Source, now, versions
from .text import Prompt, TextCodec
from .tracer import Tracer
from .verify import Verified


class Decoder:
    """A model whose residual stream and readout have been proved.

    A causal language model, or a classifier or reward model built on one: to it its
    labels are what tokens are to the other, and only whole texts can be explained.

    Making one runs the model a few times on short texts. The model is left as it was
    found: no lasting hook, no changed mode, also after an exception.

    Attributes:
        model: The Hugging Face model.
        tokenizer: The Hugging Face tokenizer, or None.
        verified: The stream, the readout, and how well they were proved.
        labels: What the logits stand for; None if they stand for tokens.
        declaration: What was said about the model when this was made.

    Raises:
        UnsupportedModelError: If there is no per-position readout that gives the
            model's own probabilities.
        NonFiniteError: If the model's logits are not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        declaration: Declaration | None = None,
        source: Source | None = None,
        anew: bool = True,
    ) -> None:
        """Find the residual stream of a loaded model and prove its readout."""
        if not isinstance(model, nn.Module):
            raise ArgumentTypeError(
                f"`model` is a {type(model).__name__}; pass a loaded Transformers "
                "model, or use `Decoder.from_pretrained` with a name."
            )
        refuse_other_kinds(model)
        check_values(model)
        self.declaration = declaration = declaration or Declaration()
        self.model, self.tokenizer = model, tokenizer
        self._source = source or Source(id=type(model).__name__)
        known = None if anew else self._source
        self._runner, proved = proof(model, declaration, known)
        notes = (*self._source.warnings, *proved.notes)
        self.verified: Verified = replace(proved, notes=notes)
        size = self.readout.vocab_size
        self.labels: Labels | None = None
        if self._runner.pooled:
            size, self.labels = n_tokens(model), labels_of(model, size)
        self._codec = TextCodec(tokenizer, size)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device | None = None,
        device_map: Any = None,
        max_memory: Mapping[int | str, int | str] | None = None,
        offload_folder: str | Path | None = None,
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        quantization_config: Any = None,
        accept_licence: bool = False,
        declaration: Declaration | None = None,
        anew: bool = False,
    ) -> "Decoder":
        """Load a model by hub id, folder, GGUF file or the name of an embedded one.

        A folder may also hold an adapter (LoRA and the like), if PEFT is installed.
        Arguments have Transformers' names and meaning.

        Args:
            model: Hub id, local folder, `.gguf` file, or "smollm2", "gemma3-270m".
            revision: Commit, branch or tag of the hub repository.
            dtype: "float32", "bfloat16", … or "auto"; None for as stored (embedded
                models: float32).
            device: Where to put the whole model; excludes `device_map`.
            device_map: Accelerate's map for several devices or offloading.
            max_memory: Bytes, or text as "8GiB", that `device_map="auto"` may fill per
                device ("cpu" is one).
            offload_folder: Where weights mapped to "disk" go, unless they can be read
                from the checkpoint itself.
            attn_implementation: "sdpa", "eager", ….
            trust_remote_code: Run code that comes with the checkpoint.
            quantization_config: Passed on.
            accept_licence: Accept the terms of an embedded model that has any.
            declaration: What discovery cannot see of an odd model.
            anew: Prove the readout though it was proved of the same files before.

        Raises:
            ModelLoadError: If there is no such model, or it is no decoder.
        """
        loaded, tokenizer, source = load_model(
            str(model),
            revision=revision,
            dtype=dtype,
            device=device,
            device_map=device_map,
            max_memory=max_memory,
            offload_folder=offload_folder,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            quantization_config=quantization_config,
            accept_licence=accept_licence,
        )
        return cls(loaded, tokenizer, declaration=declaration, source=source, anew=anew)

    @property
    def readout(self) -> AbstractReadout:
        """The model's head, as a function of one residual state."""
        return self.verified.readout

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.verified.stream.n_layers

    @property
    def context(self) -> int | None:
        """Tokens the model was made for, if its configuration says."""
        size = getattr(text_config(self.model), "max_position_embeddings", None)
        return int(size) if isinstance(size, int) and size > 0 else None

    def encode(
        self,
        prompt: Prompt,
        *,
        chat: bool = False,
        system: str | None = None,
        special_tokens: bool = True,
    ) -> list[int]:
        """Token ids of a prompt: text, ids, or a conversation with `chat`.

        Raises:
            ArgumentError: If it is empty, or longer than the model's context.
        """
        if chat:
            ids = self._codec.encode_chat(prompt, system, reply=self.labels is None)
        elif system is not None:
            raise ArgumentError("`system` needs `chat=True`.")
        else:
            ids = self._codec.encode(prompt, special_tokens=special_tokens)
        self.check_length(len(ids))
        return ids

    def encode_pieces(self, text: str | Sequence[int], size: int) -> list[list[int]]:
        """Token ids of a text of any length, in pieces of at most `size` tokens.

        Raises:
            ArgumentError: If it is empty, or holds an id the model does not have.
        """
        ids = self._codec.encode(text)
        return [ids[start : start + size] for start in range(0, len(ids), size)]

    def encode_answer(
        self, prompt_ids: Sequence[int], answer: str | Sequence[int]
    ) -> list[int]:
        """Token ids of an answer, text or ids, as the continuation of a prompt.

        Raises:
            ArgumentError: If it is empty, or holds an id the model does not have.
        """
        return self._codec.encode_answer(prompt_ids, answer)

    def target(self, named: str | int, prompt_ids: Sequence[int] = ()) -> Target:
        """The token that an id is, or the token or set split at `|` that a text names.

        Of a classifier the labels, by name or number.

        Raises:
            TargetError: If a piece is not one token of this vocabulary, or no label.
        """
        if self.labels is not None:
            return self.labels.target(named)
        return self._codec.target(named, prompt_ids)

    def token_text(self, token: int) -> str:
        """Text of one token, decoded alone."""
        return self._codec.show(token)

    def generate(
        self,
        prompt_ids: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling | None = None,
    ) -> list[int]:
        """Token ids the model goes on with: greedy, or sampled.

        Raises:
            ArgumentError: If it is a classifier, or the context is too small.
        """
        if self.labels is not None:
            raise ArgumentError(f"{self._source.id} judges texts and generates none.")
        self.check_length(len(prompt_ids) + max_new_tokens)
        return continuation(self.model, prompt_ids, max_new_tokens, sampling)

    def trace(
        self,
        ids: Sequence[int],
        positions: Sequence[int],
        *,
        layers: Sequence[int] | None = None,
        by: Level = "layer",
        prompt: str | None = None,
        settings: dict[str, object] | None = None,
    ) -> Trace:
        """Run the model once on a text and keep what attribution needs.

        Args:
            ids: Token ids of the text.
            positions: Indices of predicted tokens, out of `explainable`.
            layers: Layers to keep, None for all; 0 and the last are always kept.
            by: How far down credits will go; the first time that takes short runs.
            prompt: The text as the user gave it, for the record.
            settings: What else a rerun needs, for the record.

        Raises:
            ArgumentError: If a position or a layer is out of range.
            UnsupportedModelError: If the model has changed since it was verified.
        """
        return self._traces([ids], [positions], layers, by, prompt, settings)[0]

    def trace_many(
        self,
        texts: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        *,
        layers: Sequence[int] | None = None,
        by: Level = "layer",
        settings: dict[str, object] | None = None,
    ) -> list[Trace]:
        """Run the model once on several texts of any lengths.

        Equals `trace` of one after the other, within the noise floor. A model for
        which that does not hold runs them one by one, and the traces say so.

        Args:
            texts: Token ids of every text.
            positions: Indices of predicted tokens, per text; see `trace`.
            layers: Layers to keep, None for all.
            by: How far down credits will go.
            settings: What else a rerun needs, for the record.

        Raises:
            ArgumentError: If there is not one list of positions per text, or one of
                them is out of range.
        """
        if len(texts) != len(positions) or not texts:
            raise ArgumentError(
                f"`texts` holds {len(texts)} and `positions` {len(positions)}; give "
                "at least one text, and positions for each."
            )
        return self._traces(texts, positions, layers, by, None, settings)

    @cached_property
    def sublayers(self) -> Sublayers:
        """The parts of every block; found and proved on first use."""
        with model_lock(self.model):
            return find_sublayers(self._runner, self.verified.stream)

    def states(
        self, texts: Sequence[Sequence[int]], *, layers: Sequence[int] | None = None
    ) -> list[Float[Tensor, "points _ d_model"]]:
        """States of every token of some texts, without logits, before the final norm.

        Raises:
            ArgumentError: If a text is too long or a layer out of range.
            UnsupportedModelError: If the model has changed since it was verified.
        """
        for ids in texts:
            self.check_length(len(ids))
        rows = [torch.tensor(list(ids)) for ids in texts]
        chosen = range(self.n_layers + 1) if layers is None else layers
        batches = [rows] if len(rows) == 1 or self.batch_safe else [[r] for r in rows]
        taken = (
            states_of(self._runner, self.verified.stream, batch, list(chosen))
            for batch in batches
        )
        return [states for batch in taken for states in batch]

    @cached_property
    def batch_safe(self) -> bool:
        """Whether texts of several lengths may share a batch; tried on first use."""
        return keeps_texts_apart(self._runner, self.verified.noise)

    def _traces(
        self,
        texts: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        layers: Sequence[int] | None,
        by: Level,
        prompt: str | None,
        settings: dict[str, object] | None,
    ) -> list[Trace]:
        """Traces of some texts, in one forward pass where that can be."""
        for ids in texts:
            self.check_length(len(ids))
        wanted = (texts, positions, layers, self.provenance(prompt, settings))
        inside = None if by == "layer" else Inside(self.sublayers, by)
        if len(texts) == 1 or self.batch_safe:
            return self._tracer.traces(*wanted, inside)
        return self._tracer.one_by_one(*wanted, inside)

    @property
    def _tracer(self) -> Tracer:
        """What makes traces."""
        known = (self._runner, self.verified, self._codec, self._source.id)
        return Tracer(*known, self.declaration.causal, self.labels, self._skipped)

    @cached_property
    def _skipped(self) -> int | None:
        """The padding token at a text's end that is read over, if there is one."""
        return skipped_padding(self._runner, self.verified.noise)

    def explainable(self, ids: Sequence[int]) -> range:
        """Positions with logits: from 1, the token after the first, to what comes next.

        Only the last of them where the model answers to whole texts alone.
        """
        return self._tracer.explainable(ids)

    def unit(self, wanted: Unit | None = None) -> Unit:
        """A unit that means something for this model; for None the usual one."""
        return meaningful_unit(wanted, self._runner.measure, self.readout.vocab_size)

    def provenance(
        self, prompt: str | None = None, settings: dict[str, object] | None = None
    ) -> Provenance:
        """What a rerun needs, besides the token ids."""
        config = getattr(self.model, "config", None)
        attention = getattr(config, "_attn_implementation", None)
        settings = {"attn_implementation": attention, **(settings or {})}
        return Provenance(self.info, prompt, versions(), now(), settings)

    @property
    def info(self) -> ModelInfo:
        """Identity of the model."""
        return self._source.info(self.model, self.readout, self.n_layers)

    def check_length(self, n_tokens: int) -> None:
        """Refuse a text longer than the context.

        Raises:
            ArgumentError: If it is.
        """
        if self.context is not None and n_tokens > self.context:
            raise ArgumentError(
                f"The text needs {n_tokens} tokens, but {self._source.id} has a "
                f"context of {self.context}. Shorten the prompt, or lower "
                "`max_new_tokens`."
            )

    def __repr__(self) -> str:
        """Name, layers, and how it is read."""
        about = f"n_layers={self.n_layers}, readout={self.readout.kind!r}"
        return f"Decoder({self._source.id!r}, {about})"
