"""Tiny classifiers and reward models of many families, and what they must give.

Like `families`, with the head that classes for sequence classification have: `score`,
without a bias, whatever the language model does to its logits.
"""

import copy

import torch
import transformers as hf
from families import FAMILIES, Block, part, randomise
from torch import nn

NAMES = ("NEGATIVE", "POSITIVE")
POLAR = {"id2label": dict(enumerate(NAMES)), "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
APART = {"problem_type": "multi_label_classification"}


def classifies(name):
    """Whether Transformers has a classifier of this family."""
    known = hf.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    return FAMILIES[name].config in known


KINDS = [name for name in FAMILIES if classifies(name)]


def build(name, labels=2, dtype=torch.float32, seed=0, **changes):
    """A classifier of a family with random weights, biases and gains."""
    named = POLAR if labels == 2 else {"num_labels": labels}
    config = FAMILIES[name].config(**FAMILIES[name].options | named | changes)
    model = randomise(hf.AutoModelForSequenceClassification.from_config(config), seed)
    assert model.score.weight.shape[0] == labels
    return model.to(dtype).eval()


@torch.no_grad()
def own_logits(model, ids, **given):
    """What a model says of one text."""
    return model(torch.tensor([ids]), **given).logits[0]


@torch.no_grad()
def states_by_hooks(model, name, ids):
    """Last token's states: inputs of all blocks and the output of the last."""
    blocks, states = part(model, FAMILIES[name].blocks), []

    def before(module, args, kwargs):
        states.append((args[0] if args else kwargs["hidden_states"])[0, -1])

    def after(module, args, output):
        states.append((output[0] if isinstance(output, tuple) else output)[0, -1])

    handles = [b.register_forward_pre_hook(before, with_kwargs=True) for b in blocks]
    handles.append(blocks[-1].register_forward_hook(after))
    try:
        own_logits(model, ids)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(states)


@torch.no_grad()
def logits_of_replaced(model, name, ids, vectors):
    """Logits of a full forward in which only the last block's output is replaced."""

    def after(module, args, output):
        if isinstance(output, tuple):
            return (vectors[None].to(output[0]), *output[1:])
        return vectors[None].to(output)

    handle = part(model, FAMILIES[name].blocks)[-1].register_forward_hook(after)
    try:
        return own_logits(model, ids)
    finally:
        handle.remove()


@torch.no_grad()
def oracle_logits(model, name, states):
    """Float64 logits: the model's own norm and `score`, called one by one."""
    double = copy.deepcopy(model).double()
    return double.score(part(double, FAMILIES[name].norm)(states.double()))


class Judge(nn.Module):
    """A classifier without any convention of Transformers; `read` picks the place."""

    def __init__(self, read, n_labels=2):
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.body = nn.Sequential(*(Block() for _ in range(3)))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, n_labels)
        self.read = read
        randomise(self)

    def forward(self, input_ids, attention_mask=None):
        hidden = self.norm(self.body(self.embed(input_ids)))
        return {"logits": self.head(self.read(hidden, attention_mask))}


def very_last(hidden, mask):
    """The last place, padding or not."""
    return hidden[:, -1]


def last_by_mask(hidden, mask):
    """The last place that the attention mask leaves."""
    return hidden[torch.arange(len(hidden)), mask.sum(1) - 1]


def one_before(hidden, mask):
    """The place before the last one."""
    return hidden[:, -2 if hidden.shape[1] > 1 else -1]


def first(hidden, mask):
    """The first place."""
    return hidden[:, 0]


def mean(hidden, mask):
    """All places together."""
    return hidden.mean(1)
