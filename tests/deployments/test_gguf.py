"""GGUF files, through Transformers, which dequantises them."""

import json

import numpy as np
import pytest
import torch
from deployed import EVERY, IDS, assert_exact
from families import TEXT, build, full_logits, tokenizer
from gguf_files import F32, Q4, Q8, write_gguf

from iglens import Decoder, ModelLoadError, explain
from iglens.cli.main import run
from iglens.model.weights import weights_sha256
from iglens.readout import LinearReadout

SIZES = {"intermediate_size": 64}
"""Rows are quantised in pieces of 32."""

MOVED = {F32: (0, 1e-6), Q8: (1e-5, 0.05), Q4: (1e-3, 1.0)}
"""By how much the kinds may change a probability, at least and at most."""


@pytest.fixture(scope="module", params=MOVED, ids=lambda kind: kind.name)
def file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / f"tiny-{request.param.name}.gguf"
    return write_gguf(path, build("llama", **SIZES), tokenizer(), request.param)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path / "cache"))


def test_a_file_is_loaded_dequantised_and_explained(file, request):
    decoder = Decoder.from_pretrained(file)
    result = assert_exact(decoder, decoder.model.model.layers)
    assert isinstance(decoder.readout, LinearReadout)
    plain = explain(Decoder(build("llama", **SIZES)), IDS, **EVERY)
    moved = np.abs(result.final - plain.final).max()
    kind = request.node.callspec.params["file"]
    least, most = MOVED[kind]
    assert least <= moved <= most
    assert decoder.encode(TEXT) == tokenizer().encode(TEXT)
    assert decoder.info.weights_sha256 == weights_sha256(file)
    assert decoder.info.path == str(file.parent)
    assert decoder.info.note == "dequantised from GGUF"


def test_a_dtype_may_be_chosen(file):
    decoder = Decoder.from_pretrained(file, dtype="bfloat16")
    assert decoder.info.dtype == "bfloat16"
    head = decoder.model.lm_head.weight
    assert head.dtype == torch.bfloat16
    expected = Decoder.from_pretrained(file).model.lm_head.weight
    torch.testing.assert_close(head, expected.bfloat16())


def test_the_command_takes_a_file(file, capsys):
    arguments = ["explain", TEXT, "-m", str(file), "--json", "--max-new-tokens", "1"]
    assert run([*arguments, "--quiet"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["model"]["note"] == "dequantised from GGUF"
    decoder = Decoder.from_pretrained(file)
    chances = full_logits(decoder.model, decoder.encode(TEXT))[-1].softmax(-1)
    assert content["final"][0] == pytest.approx(float(chances.max()), abs=1e-6)


@pytest.mark.parametrize("left", [3, 100, 2000, -1000])
def test_half_a_file_is_one_line(file, tmp_path, left, capsys):
    damaged = tmp_path / "half.gguf"
    damaged.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ModelLoadError, match="could not be loaded") as caught:
        Decoder.from_pretrained(damaged)
    assert "\n" not in str(caught.value)
    assert run(["explain", "a", "-m", str(damaged), "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
