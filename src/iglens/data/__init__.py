"""Files that come with the package: schemas, beginnings of texts, and prompts."""

import json
from importlib.resources import files


def prompts() -> list[dict[str, str]]:
    """Prompts with one known answer each, written for this project from public facts.

    Returns:
        `id`, `relation` ("capital", "plural", "indirect object", …), `kind` ("factual",
        "grammatical" or "relational"), `prompt`, `subject` (what it is about) and
        `answer` (what follows, with its leading space) of each.

    Example:
        >>> found = {each["id"]: each for each in prompts()}
        >>> found["capital-012"]["prompt"], found["capital-012"]["answer"]
        ('The capital of Denmark is', ' Copenhagen')
    """
    text = (files(__name__) / "prompts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
