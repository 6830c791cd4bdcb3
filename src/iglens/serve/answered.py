"""A question that was answered: in token ids for links, in words for people."""

from typing import Any

from ..records import Attribution
from .question import Ids, Question
from .served import Served


def again(served: Served, question: Question, result: Attribution) -> Question:
    """The same question in token ids, so that nothing is tokenised or generated anew.

    Args:
        served: The model that was asked.
        question: What was asked.
        result: What came out.

    Returns:
        A question whose answer is the same result, on the same model.
    """
    n_prompt = int(str(result.provenance.settings["prompt_tokens"]))
    ids: Ids = result.token_ids.tolist()
    prompt, answer = ids[:n_prompt], ids[n_prompt:] or None

    def fixed(item: Any) -> Any:
        """A target by its ids, whatever it was called."""
        if not isinstance(item, str) or item.startswith("@"):
            return item
        found = list(served.decoder.target(item, prompt).ids)
        return found[0] if len(found) == 1 else found

    target: Any = question.target
    target = [fixed(i) for i in target] if isinstance(target, list) else fixed(target)
    but = {
        "prompt": prompt,
        "answer": answer,
        "target": target,
        "contrast": fixed(question.contrast),
        "max_new_tokens": 0,
        "model": served.face.model,
    }
    usual = ("chat", "system", "special_tokens", "sample", "temperature", "top_p")
    plain = {name: Question.model_fields[name].default for name in (*usual, "seed")}
    return question.model_copy(update=but | plain)


def in_words(served: Served, question: Question) -> tuple[Question, str]:
    """A question as a person may change it: token ids become the texts they stand for.

    Returns:
        The question, and its prompt as one text.
    """
    decoder = served.decoder

    def text_of(ids: Any) -> str:
        """Token ids as text."""
        if decoder.tokenizer is None:
            return "".join(map(decoder.token_text, ids))
        return str(decoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def named(item: Any) -> Any:
        """A target by its text."""
        ids = [item] if isinstance(item, int) else item
        if not isinstance(ids, list):
            return item
        return "|".join(decoder.target(i).text.replace("|", "\\|") for i in ids)

    prompt, answer, target = question.prompt, question.answer, question.target
    match prompt:
        case str():
            text = prompt
        case [int(), *_]:
            text = text_of(prompt)
        case _:
            text = "\n".join(getattr(turn, "content", "") for turn in prompt)
    usual, given = (
        Question.model_fields["max_new_tokens"].default,
        question.max_new_tokens,
    )
    but = {
        "answer": text_of(answer) if isinstance(answer, list) else answer,
        "contrast": named(question.contrast),
        "max_new_tokens": usual if isinstance(answer, list) else given,
        "target": [named(i) for i in target]
        if isinstance(target, list)
        else named(target),
    }
    return question.model_copy(update=but), text
