"""Between text and token ids: prompts, chats, answers, targets, and their display."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from numbers import Integral
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..errors import ArgumentError, ArgumentTypeError, TargetError
from ..records import Target
from ..stages import stage

Messages = Sequence[Mapping[str, str]]
Prompt = str | Sequence[int] | Messages
"""Text, token ids, or chat messages with "role" and "content"."""


@dataclass(frozen=True, eq=False)
class TextCodec:
    """A tokenizer, or none, behind one face.

    Attributes:
        tokenizer: The Hugging Face tokenizer; None if only ids are used.
        vocab_size: Number of logits of the model.
    """

    tokenizer: PreTrainedTokenizerBase | None
    vocab_size: int

    @stage("tokenise")
    def encode(self, prompt: Prompt, *, special_tokens: bool = True) -> list[int]:
        """Token ids of a prompt, with what the tokenizer itself adds and no more.

        Raises:
            ArgumentError: If the prompt is empty or an id is not in the vocabulary.
            ArgumentTypeError: If it is text and there is no tokenizer.
        """
        if isinstance(prompt, str):
            if not prompt:
                raise ArgumentError("`prompt` is empty: there is nothing to explain.")
            ids = self._known(self._ids(prompt, special_tokens=special_tokens))
        elif isinstance(prompt, bytes) or not _is_sequence(prompt):
            raise ArgumentTypeError(
                f"`prompt` is a {type(prompt).__name__}; pass text, a list of token "
                "ids, or (with `chat=True`) messages."
            )
        elif prompt and isinstance(prompt[0], Mapping):
            raise ArgumentTypeError("`prompt` holds chat messages: pass `chat=True`.")
        else:
            ids = self.checked("prompt", prompt)
        if not ids:
            raise ArgumentError("`prompt` is empty: it has no tokens.")
        return ids

    @stage("tokenise")
    def encode_chat(
        self, prompt: Prompt, system: str | None = None, *, reply: bool = True
    ) -> list[int]:
        """Token ids of a conversation, through the tokenizer's chat template.

        With `reply` up to where the next message of the model begins, else to the end
        of the last message.

        Raises:
            ArgumentError: If the tokenizer has no template or it refuses the messages.
            ArgumentTypeError: If the prompt is neither text nor messages.
        """
        tokenizer = self._needed("a chat template")
        if not getattr(tokenizer, "chat_template", None):
            raise ArgumentError(
                "This tokenizer has no chat template: leave `chat` off, or write the "
                "conversation out as one text."
            )
        messages: list[dict[str, str]] = []
        if system is not None:
            messages.append({"role": "system", "content": system})
        if isinstance(prompt, str):
            if not prompt:
                raise ArgumentError("`prompt` is empty: there is nothing to explain.")
            messages.append({"role": "user", "content": prompt})
        else:
            messages += [_message(item) for item in prompt]
        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=reply
            )
        except Exception as error:  # templates raise whatever they like
            raise ArgumentError(
                f"The chat template refuses these messages: {error}."
            ) from error
        return self._known(self._ids(str(text), special_tokens=False))

    @stage("tokenise")
    def encode_answer(
        self, prompt_ids: Sequence[int], answer: str | Sequence[int]
    ) -> list[int]:
        """Token ids of an answer, text or ids, as the continuation of a prompt.

        Prompt and answer are tokenised together, as the model met texts in training.
        Where the prompt's tokens do not come back from its text, they are tokenised
        apart.

        Raises:
            ArgumentError: If the answer is empty, if its border with the prompt lies
                inside a token, or if an id is not in the vocabulary.
        """
        if not answer:
            raise ArgumentError("`answer` is empty: there is nothing to explain.")
        if not isinstance(answer, str):
            return self.checked("answer", answer)
        self._needed("an answer given as text")
        known = self._joined(prompt_ids, answer)
        if known is None:
            return self._known(self._ids(answer, special_tokens=False))
        before, joined = known
        if not (len(joined) > len(before) and joined[: len(before)] == before):
            raise self._no_continuation(before, joined, answer)
        return self._known(joined[len(before) :])

    @stage("tokenise")
    def target(self, named: str | int, prompt_ids: Sequence[int] = ()) -> Target:
        """The token that an id is, or the token or set split at `|` that a text names.

        Raises:
            TargetError: If a piece is not one token; says what it splits into.
            ArgumentError: If an id is not in the vocabulary.
        """
        if not isinstance(named, str):
            return Target((*self.checked("target", [named]),), self.show(named))
        text = named
        whole = self._one_token(text, prompt_ids)
        if whole is not None:
            return Target((whole,), text)
        pieces = [piece.replace("\0", "|") for piece in _split(text)]
        ids = []
        for piece in pieces:
            token = self._one_token(piece, prompt_ids)
            if token is None:
                raise self._not_one_token(piece)
            ids.append(token)
        return Target(tuple(ids), "|".join(pieces))

    def show(self, token: int) -> str:
        """Text of one token, decoded alone; its id in brackets if it has none.

        Heads are often padded to a round number of rows: the last ids then stand for
        no token, and have a probability all the same.
        """
        if self.tokenizer is None or not self._has_text(token):
            return f"<{token}>"
        return str(self.tokenizer.decode([token]))

    def _has_text(self, token: int) -> bool:
        """Whether the tokenizer knows an id."""
        tokenizer: Any = self.tokenizer
        try:
            return tokenizer.convert_ids_to_tokens(token) is not None
        except (IndexError, KeyError, ValueError, OverflowError):
            return False  # what tokenizers written in Python do

    def doubled_bos(self, ids: Sequence[int]) -> bool:
        """Whether the text starts with the beginning-of-text token twice."""
        bos = getattr(self.tokenizer, "bos_token_id", None)
        return len(ids) > 1 and bos is not None and ids[0] == ids[1] == bos

    def _joined(
        self, prompt_ids: Sequence[int], text: str
    ) -> tuple[list[int], list[int]] | None:
        """A prompt, and prompt and text as one; None if the prompt does not come back.

        Some tokenizers lose a space or a special token on the way to text and back;
        then nothing can be told from the whole.
        """
        prompt = list(prompt_ids)
        if not all(map(self._has_text, prompt)):
            return None
        before = self._needed("text").decode(prompt)
        if self._ids(before, special_tokens=False) != prompt:
            return None
        return prompt, self._ids(before + text, special_tokens=False)

    def _continuation(self, prompt_ids: Sequence[int], text: str) -> list[int]:
        """Token ids of a text that goes on from a prompt, or stands alone."""
        if (known := self._joined(prompt_ids, text)) is not None:
            before, joined = known
            if len(joined) > len(before) and joined[: len(before)] == before:
                return joined[len(before) :]
        return self._ids(text, special_tokens=False)

    def _no_continuation(
        self, prompt: list[int], joined: list[int], answer: str
    ) -> ArgumentError:
        """The error that shows the token which spans prompt and answer."""
        same = sum(1 for _ in takewhile(_equal, zip(prompt, joined, strict=False)))
        own = [self.show(token) for token in prompt[same:]]
        span = [self.show(token) for token in joined[same : same + 3]]
        hint = "Let the answer begin where a token does, or pass it as token ids."
        if own and own[-1].isspace():
            hint = f"Leave the space to the answer, as in {own[-1] + answer!r}."
        return ArgumentError(
            f"`answer` {answer!r} does not continue the prompt's tokens: the prompt "
            f"ends in {own}, and with the answer the tokenizer makes {span} of it. "
            f"{hint}"
        )

    def _one_token(self, text: str, prompt_ids: Sequence[int]) -> int | None:
        """The one token a text is: by itself, by name, or after the prompt."""
        tokenizer = self._needed("a target given as text")
        if not text:
            return None
        candidates = [self._ids(text, special_tokens=False)]
        named = tokenizer.convert_tokens_to_ids(text)
        if isinstance(named, int) and named != tokenizer.unk_token_id:
            candidates.append([named])
        if prompt_ids:
            candidates.append(self._continuation(prompt_ids, text))
        for ids in candidates:
            unknown = ids == [tokenizer.unk_token_id] and text != tokenizer.unk_token
            if len(ids) == 1 and 0 <= ids[0] < self.vocab_size and not unknown:
                return ids[0]
        return None

    def _not_one_token(self, piece: str) -> TargetError:
        """The error that shows how a target splits."""
        if not piece:
            return TargetError("`target` has an empty piece; write `\\|` for a bar.")
        shown = [self.show(token) for token in self._ids(piece, special_tokens=False)]
        if len(shown) == 1:
            return TargetError(
                f"`target` {piece!r} is no token of this model: its tokenizer makes "
                f"{shown[0]!r} of it."
            )
        hint = ""
        if not piece.startswith(" ") and self._one_token(f" {piece}", ()) is not None:
            hint = f" Did you mean {' ' + piece!r}, with its leading space?"
        return TargetError(
            f"`target` {piece!r} is not one token but {len(shown)}: {shown}.{hint} Use "
            "`answer` to explain several tokens in a row, or join alternatives with "
            "`|` to a set."
        )

    def _ids(self, text: str, *, special_tokens: bool) -> list[int]:
        """The tokenizer's ids, without its warnings about length."""
        tokenizer = self._needed("text")
        encoded = tokenizer(text, add_special_tokens=special_tokens, verbose=False)
        return [int(token) for token in encoded["input_ids"]]

    def _needed(self, use: str) -> Any:
        """The tokenizer, or an error that says what it is needed for."""
        if self.tokenizer is None:
            raise ArgumentTypeError(
                f"This decoder has no tokenizer, which {use} needs: pass token ids, or "
                "`Decoder(model, tokenizer)`."
            )
        return self.tokenizer

    def checked(self, name: str, tokens: Sequence[object]) -> list[int]:
        """Token ids of this vocabulary, given as the argument `name`.

        Raises:
            ArgumentError: If an id is not in the vocabulary.
            ArgumentTypeError: If one is no whole number.
        """
        ids = []
        for token in tokens:
            if isinstance(token, bool) or not isinstance(token, Integral):
                raise ArgumentTypeError(
                    f"`{name}` holds {token!r}; token ids must be whole numbers."
                )
            number = int(token)
            if not 0 <= number < self.vocab_size:
                raise ArgumentError(
                    f"`{name}` holds token id {number}; this model has [0, "
                    f"{self.vocab_size})."
                )
            ids.append(number)
        return ids

    def _known(self, ids: list[int]) -> list[int]:
        """The tokenizer's ids, refused if the model has no such tokens."""
        if ids and max(ids) >= self.vocab_size:
            raise ArgumentError(
                f"The tokenizer gives token id {max(ids)}, but this model has [0, "
                f"{self.vocab_size}): they do not belong together."
            )
        return ids


def _equal(pair: tuple[int, int]) -> bool:
    """Whether the two are the same."""
    return pair[0] == pair[1]


def _is_sequence(value: object) -> bool:
    """Whether a value is a sequence; arrays and tensors are none."""
    return isinstance(value, Sequence)


def _message(item: object) -> dict[str, str]:
    """One message of a conversation."""
    if not isinstance(item, Mapping):
        raise ArgumentTypeError(
            f"`prompt` holds {item!r}; with `chat` it is text, or messages with "
            '"role" and "content".'
        )
    return dict(item)


def _split(text: str) -> list[str]:
    r"""Pieces between bars; `\|` is a literal bar (passed on as a null)."""
    return text.replace("\\|", "\0").split("|")
