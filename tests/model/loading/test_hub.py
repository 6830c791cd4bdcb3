import json

import pytest

from iglens.model.loading.hub import cached_models


@pytest.fixture
def hub(tmp_path):
    """A Hugging Face cache with one entry per kind that matters."""

    def add(name, config, weights="model.safetensors"):
        repo = tmp_path / f"models--{name.replace('/', '--')}"
        snapshot = repo / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text("a" * 40)
        (snapshot / "config.json").write_text(json.dumps(config))
        if weights:
            (snapshot / weights).write_bytes(b"1234")

    add("Org/causal", {"architectures": ["LlamaForCausalLM"]})
    add("gpt2", {"architectures": ["GPT2LMHeadModel"]}, "pytorch_model.bin")
    add("bert", {"architectures": ["BertForMaskedLM"]})
    add(
        "t5",
        {"architectures": ["T5WithLMHeadModel"], "is_encoder_decoder": True},
    )
    add("only-config", {"architectures": ["LlamaForCausalLM"]}, weights=None)
    add("odd", {"architectures": None})
    return tmp_path


def test_causal_models_with_weights_are_listed(hub):
    found = cached_models(hub)
    assert [model.name for model in found] == ["gpt2", "Org/causal"]
    assert all((model.path / "config.json").is_file() for model in found)
    assert found[0].bytes > 4


def test_no_cache_is_no_models(tmp_path):
    assert cached_models(tmp_path / "nowhere") == []
