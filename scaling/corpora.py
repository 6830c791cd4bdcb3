"""A tiny model, and corpora for it: what is measured is the run, not the model."""

import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import iglens

WORDS = 2048
"""Tokens of the vocabulary."""


def tiny(seed: int = 0) -> iglens.Decoder:
    """Two layers with weights from a seed; a word is a token."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=None,
        eos_token_id=None,
    )
    split = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, "w0"))
    from tokenizers.pre_tokenizers import WhitespaceSplit

    split.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=split, unk_token="w0")
    return iglens.Decoder(LlamaForCausalLM(config).eval(), tokenizer)


def write(path: Path, n_rows: int, seed: int = 0) -> Path:
    """So many rows with prompts of 1 to 40 words and answers of 40."""
    rng = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(f"w{rng.randrange(WORDS)}" for _ in range(count))

    with path.open("w", encoding="utf-8") as file:
        for _ in range(n_rows):
            row = {"prompt": words(rng.randint(1, 40)), "answer": " " + words(40)}
            file.write(json.dumps(row) + "\n")
    return path
