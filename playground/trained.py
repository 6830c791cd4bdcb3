"""A mechanism that is learned: induction, where only two attentions could learn it.

All blocks of a random GPT-2 stay as they are but the attentions of two layers, drawn
from the seed, which are trained together with the embeddings and the head to continue
texts that repeat themselves. No single attention can do it: the token before has to be
noted at every token first, and then to be found. So the plan is known without looking:
the first of the two prepares, the second makes the token readable. Which heads of these
do it is not known, and is not asked.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from .mechanisms import Planted
from .plan import Plan, Prompt, Site

NAME = "induction, trained"

N_LAYERS = 6
WIDTH = 64
VOCABULARY = 32
REPEATED = range(8, 13)
"""Numbers of different tokens that a text repeats."""

SHOWN = 6
"""How many of them a prompt repeats, out of as many as there may be."""

STEPS = 600
BATCH = 64
RATE = 3e-3


def trained(seed: int) -> Planted:
    """A model that learned induction in two layers; some ten seconds.

    Args:
        seed: Of layers, weights and texts.
    """
    source = np.random.default_rng([17, seed])
    layers = sorted(1 + source.choice(N_LAYERS, 2, replace=False))
    generator = torch.Generator().manual_seed(seed)
    model = _random(generator)
    _train(model, list(_learning(model, layers)), generator)
    model.eval().requires_grad_(False)
    first, second = (Site(int(layer), "attention") for layer in layers)
    return Planted(NAME, model, Plan((second,), (first, second)), _prompts)


def _random(generator: torch.Generator) -> GPT2LMHeadModel:
    """A model whose blocks add little."""
    config = GPT2Config(
        n_layer=N_LAYERS,
        n_head=4,
        n_embd=WIDTH,
        n_inner=WIDTH,
        vocab_size=VOCABULARY,
        n_positions=64,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    model = GPT2LMHeadModel(config)
    for name, weight in model.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        if weight.dim() == 1:
            gain = "ln_" in name and name.endswith("weight")
            weight.data = 1 + 0.2 * drawn if gain else 0.02 * drawn
        elif "c_proj" in name:
            weight.data = drawn / WIDTH
        elif "lm_head" in name:
            weight.data = 0.02 * drawn
        else:
            weight.data = drawn * (WIDTH**-0.5 if ".h." in name else 0.3)
    return model


def _learning(model: GPT2LMHeadModel, layers: list[int]) -> Iterator[nn.Parameter]:
    """What is trained; all else is left as it is."""
    own = tuple(f"transformer.h.{at - 1}.{part}" for at in layers for part in
                ("attn.", "ln_1."))  # fmt: skip
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(own) or ".h." not in name)
        if weight.requires_grad:
            yield weight


def _train(
    model: GPT2LMHeadModel, weights: list[nn.Parameter], generator: torch.Generator
) -> None:
    """Cross-entropy on the second time that a text says what it says."""
    optimiser = torch.optim.AdamW(weights, RATE, betas=(0.9, 0.98), weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / 50, (STEPS - step) / 100)
    )
    with torch.enable_grad():
        for _ in range(STEPS):
            count = int(
                torch.randint(REPEATED.start, REPEATED.stop, (), generator=generator)
            )
            ids = _texts(BATCH, count, generator)
            logits = model(ids).logits[:, count + 1 : -1]
            loss = nn.functional.cross_entropy(
                logits.flatten(0, 1), ids[:, count + 2 :].flatten()
            )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            rate.step()


def _texts(
    n_texts: int, count: int, generator: torch.Generator
) -> Int[Tensor, "texts length"]:
    """A beginning, different tokens, and the same again."""
    drawn = torch.rand(n_texts, VOCABULARY - 1, generator=generator)
    said = 1 + drawn.argsort(1)[:, :count]
    return torch.cat([torch.zeros(n_texts, 1, dtype=torch.long), said, said], 1)


def _prompts(count: int, seed: int) -> list[Prompt]:
    """Different tokens, the first of them again, and which one follows."""
    whole = REPEATED[-1]
    texts = _texts(count, whole, torch.Generator().manual_seed(seed))
    end = 1 + whole + SHOWN
    return [Prompt(tuple(text[:end]), text[end]) for text in texts.tolist()]
