"""Checkpoints with code of their own: never run unasked, explained when trusted."""

import json
import os
import subprocess
import sys

import pytest
from families import TEXT, build, tokenizer

from iglens import Decoder, ModelLoadError
from iglens.cli.main import run

CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

print("THIS CODE RAN")


class ZorgConfig(PretrainedConfig):
    model_type = "zorg"

    def __init__(self, hidden_size=16, num_hidden_layers=3, vocab_size=97, **rest):
        self.hidden_size, self.vocab_size = hidden_size, vocab_size
        self.num_hidden_layers = num_hidden_layers
        super().__init__(**rest)


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
        return x + torch.tanh(self.mix(self.norm(x).cumsum(1) / count))


class ZorgForCausalLM(PreTrainedModel):
    config_class = ZorgConfig

    def __init__(self, config):
        super().__init__(config)
        width = config.hidden_size
        self.embed = nn.Embedding(config.vocab_size, width)
        stack = [Layer(width) for _ in range(config.num_hidden_layers)]
        self.stack = nn.ModuleList(stack)
        self.out_norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids=None, attention_mask=None, **rest):
        x = self.embed(input_ids)
        for layer in self.stack:
            x = layer(x)
        return CausalLMOutput(logits=7 * torch.tanh(self.out(self.out_norm(x)) / 7))
"""

SAVE = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import modeling_zorg as zorg
torch.manual_seed(0)
model = zorg.ZorgForCausalLM(zorg.ZorgConfig(bos_token_id=1, eos_token_id=2))
for weight in model.parameters():
    torch.nn.init.normal_(weight, std=0.5)
model.save_pretrained(sys.argv[1])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint as an author of a new architecture publishes it."""
    place = tmp_path_factory.mktemp("zorg") / "zorg-tiny"
    place.mkdir()
    (place / "modeling_zorg.py").write_text(CODE)
    subprocess.run([sys.executable, "-c", SAVE, str(place)], check=True)
    config = json.loads((place / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "modeling_zorg.ZorgConfig",
        "AutoModelForCausalLM": "modeling_zorg.ZorgForCausalLM",
    }
    (place / "config.json").write_text(json.dumps(config))
    tokenizer().save_pretrained(place)
    return place


@pytest.mark.slow
def test_code_of_a_checkpoint_is_refused_unasked(folder, capfd):
    said = r"code of its own.*trust_remote_code=True"
    with pytest.raises(ModelLoadError, match=said):
        Decoder.from_pretrained(folder)
    assert run(["explain", "a", "-m", str(folder), "--quiet"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "--trust-remote-code" in err


def command(folder, cache, *arguments):
    """`iglens explain` in an interpreter of its own, as a user runs it."""
    places = {"HF_MODULES_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "iglens", "explain", TEXT, "-m", str(folder),
         "--target", " Paris", "--quiet", *arguments],
        env=os.environ | places, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_code_that_is_trusted_runs_and_is_explained(folder, tmp_path):
    done = command(folder, tmp_path, "--json", "--trust-remote-code")
    assert done.returncode == 0, done.stderr
    first, _, document = done.stdout.partition("\n")
    assert first == "THIS CODE RAN"
    result = json.loads(document)
    assert result["model"]["architecture"] == "ZorgForCausalLM"
    assert result["model"]["n_layers"] == 3
    assert result["readout"]["kind"] == "explicit"
    assert result["readout"]["postprocess"] == "softcap 7"
    assert result["fidelity"][0] < 1e-5


@pytest.mark.slow
def test_libraries_that_lie_beside_transformers_say_nothing(tmp_path):
    """They warn, as they are imported, of kernels that this machine has not."""
    build("llama").save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    done = command(tmp_path / "tiny", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
