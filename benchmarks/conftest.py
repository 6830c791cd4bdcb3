import pytest
import torch

# Before the type-check hook loads our modules; see tests/conftest.py.
import transformers.modeling_utils  # noqa: F401

import iglens

TEXT = """The lens is older than the telescope. Glass makers in Venice ground small
discs of clear glass for readers whose eyes had grown weak, and for three
hundred years nobody thought of holding two of them in a row. When somebody
did, the moons of Jupiter came down to the window sill, and with them a
question that had not been asked before: what else is there, plainly in
sight, that we have no instrument for? A language model is a strange thing
to point a lens at. It has no surface and it does not shine. It is a list of
numbers that turns one text into the next word, and each of its layers
changes the list a little. Somewhere on that way the next word becomes
legible, early for a comma, late for the name of a town, and the same word
may appear, fade and return before it is said. To ask where a word comes
from is to ask between which two of these layers the reader at the end could
first have made it out. The answer is a number for every layer, and the
numbers add up, because nothing is read twice and nothing is left out."""


@pytest.fixture(scope="session", autouse=True)
def threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def decoder():
    return iglens.Decoder.from_pretrained("smollm2")


@pytest.fixture(scope="session")
def traces(decoder):
    ids = (decoder.encode(TEXT) * 2)[:201]

    def of(n_tokens):
        return decoder.trace(ids[: n_tokens + 1], range(1, n_tokens + 1))

    return of
