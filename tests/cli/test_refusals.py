"""Models and checkpoints that are refused: one line on stderr, exit code 2."""

import json
import shutil

import pytest
import torch
from families import build, tokenizer
from gguf_files import write_gguf
from safetensors.torch import load_file, save_file

from iglens.cli.main import run


def set_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def set_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def remote_code(folder):
    (folder / "code.py").write_text("raise SystemExit('this code ran')")
    set_config(folder, model_type="zorg", auto_map={"AutoConfig": "code.Config"})


def no_tokenizer(folder):
    for file in [*folder.glob("*token*"), *folder.glob("chat_template*")]:
        file.unlink()


def half_the_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:9999])


def a_weight_less(folder):
    set_weights(
        folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight")
    )


def nan_weights(folder):
    set_weights(folder, lambda w: w["model.norm.weight"].fill_(float("nan")))


def a_smaller_vocabulary(folder):
    build("llama", vocab_size=20).save_pretrained(folder)


def an_adapter_of_nothing(folder):
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": null}')


def a_classifier_of_tokens(folder):
    set_config(folder, architectures=["LlamaForTokenClassification"])


REFUSED = {
    remote_code: "--trust-remote-code",
    no_tokenizer: "no tokenizer, which text needs: pass token ids",
    half_the_weights: "could not be loaded: SafetensorError",
    a_weight_less: "lacks 1 weights",
    nan_weights: "these weights are not finite: model.norm.weight",
    a_smaller_vocabulary: "they do not belong together",
    an_adapter_of_nothing: "`base_model_name_or_path`",
    a_classifier_of_tokens: "LlamaForTokenClassification",
}


@pytest.fixture
def explain(capfd):
    def call(model, *arguments):
        code = run(["explain", "The", "-m", str(model), *arguments])
        return code, *capfd.readouterr()

    return call


@pytest.mark.parametrize("damage", REFUSED, ids=lambda damage: damage.__name__)
def test_a_bad_checkpoint_is_one_line_and_exit_code_2(
    explain, tiny_folder, tmp_path, damage
):
    folder = shutil.copytree(tiny_folder, tmp_path / "copied")
    damage(folder)
    code, out, err = explain(folder, "--max-new-tokens", "1", "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith("iglens: ")
    assert err.count("\n") == 1
    assert REFUSED[damage] in err
    assert "Traceback" not in err


def test_half_a_gguf_file_is_one_line_and_exit_code_2(explain, tmp_path):
    file = tmp_path / "tiny.gguf"
    write_gguf(file, build("llama", intermediate_size=64), tokenizer())
    file.write_bytes(file.read_bytes()[:4000])
    code, out, err = explain(file, "--quiet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "could not be loaded" in err


def test_weights_without_a_place_are_a_warning_that_is_shown(
    explain, tiny_folder, tmp_path
):
    folder = shutil.copytree(tiny_folder, tmp_path / "copied")
    set_config(folder, num_hidden_layers=2)
    code, _, err = explain(folder, "--max-new-tokens", "1")
    assert code == 0
    assert "9 weights that the model does not use" in " ".join(err.split())
    code, out, _ = explain(folder, "--max-new-tokens", "1", "--json")
    assert "9 weights that the model does not use" in json.loads(out)["warnings"][0]


def test_ids_without_text_are_shown_by_their_number(explain, tmp_path):
    known = len(tokenizer())
    model = build("llama", vocab_size=known + 23)
    with torch.no_grad():
        model.lm_head.weight[:known] = 0
    model.save_pretrained(tmp_path / "padded")
    tokenizer().save_pretrained(tmp_path / "padded")
    code, out, _ = explain(tmp_path / "padded", "--max-new-tokens", "2", "--json")
    assert code == 0
    shown = [target["text"] for target in json.loads(out)["target"]]
    assert all(text.startswith("<") and text.endswith(">") for text in shown)
    code, out, _ = explain(tmp_path / "padded", "--max-new-tokens", "2")
    assert code == 0
    assert shown[0] in out
