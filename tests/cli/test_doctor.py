"""The command: exit codes, one JSON document, stdout against stderr."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import transformers as hf
from families import CONTEXT, NEOX_SIZES, build, randomise, tokenizer
from jsonschema import Draft202012Validator

from iglens.cli.main import run

SCHEMA = json.loads((files("iglens.data") / "doctor.schema.json").read_text())


@pytest.fixture
def doctor(capsys):
    def call(*arguments):
        code = run(["doctor", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def refused_folder(tmp_path_factory):
    """A BERT that reads both ways: it loads as a causal model, and is none."""
    folder = tmp_path_factory.mktemp("bert")
    sizes = NEOX_SIZES | {"max_position_embeddings": CONTEXT}
    model = hf.BertLMHeadModel(hf.BertConfig(**sizes, is_decoder=False))
    randomise(model).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder_decoder_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    config = hf.T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, vocab_size=40)
    hf.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_verified_model_is_exit_code_0_and_its_verdict_comes_first(
    doctor, tiny_folder
):
    code, out, err = doctor(tiny_folder)
    assert code == 0
    assert out.startswith("Exact: ")
    assert err == f"Loading {tiny_folder} …\n"
    for title in ("model", "layers", "inside the layers", "readout", "measured on"):
        assert f"\n{title}" in out
    assert "\x1b" not in out  # no colour in a pipe


def test_json_on_stdout_is_one_valid_document(doctor, tiny_folder):
    code, out, err = doctor(tiny_folder, "--json", "--quiet")
    assert (code, err) == (0, "")
    document = json.loads(out)
    Draft202012Validator(SCHEMA).validate(document)
    assert document["schema"] == "iglens.doctor/1"
    assert document["verdict"] == "exact"
    assert document["name"] == str(tiny_folder)
    assert document["model"]["path"] == str(tiny_folder)
    assert document["model"]["weights_sha256"]


def test_a_refused_model_is_exit_code_2_with_a_report(doctor, refused_folder):
    code, out, err = doctor(refused_folder, "--quiet")
    assert code == 2
    assert " ".join(out.split()).startswith("Refused: BertLMHeadModel is not causal")
    assert "(BertLMHeadModel)" in out
    assert "29,009 parameters in float32" in out
    assert err == f"iglens: {refused_folder} is refused; the report says why.\n"


def test_a_refused_model_is_json_too(doctor, refused_folder):
    code, out, _ = doctor(refused_folder, "--json", "--quiet")
    document = json.loads(out)
    Draft202012Validator(SCHEMA).validate(document)
    assert code == 2
    assert document["verdict"] == "refused"
    assert document["model"]["architecture"] == "BertLMHeadModel"
    assert document["layers"] is None


def test_a_model_that_is_refused_before_it_is_loaded(doctor, encoder_decoder_folder):
    code, out, _ = doctor(encoder_decoder_folder, "--json", "--quiet")
    document = json.loads(out)
    Draft202012Validator(SCHEMA).validate(document)
    assert code == 2
    assert "encoder-decoder" in document["sentence"]
    assert document["model"] is None
    assert doctor(encoder_decoder_folder)[1].startswith("Refused: ")


def test_what_was_tried_is_printed(doctor, tmp_path, monkeypatch):
    from iglens.model import verify

    model = build("llama")
    model.save_pretrained(tmp_path)
    planted = "it misses by 0.9"
    monkeypatch.setattr(verify._Case, "failure", lambda self: planted)
    code, out, _ = doctor(tmp_path, "--quiet")
    assert code == 2
    assert "what was tried" in out
    assert "model.layers" in out.split("what was tried")[1]


@pytest.mark.parametrize("how", [[], ["--json"]], ids=["text", "json"])
def test_a_missing_model_gets_one_line_and_nothing_on_stdout(doctor, how):
    code, out, err = doctor("/no/such/model", "--quiet", *how)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "no model folder" in err


def test_debug_shows_why_a_model_was_refused(doctor, refused_folder):
    code, out, err = doctor(refused_folder, "--debug")
    assert code == 2
    assert out.startswith("Refused")
    assert "Traceback" in err
    assert "check_causality" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tokens", "40"),
        ("--dtype", "bfloat16", "--device", "cpu"),
        ("--dtype", "float16", "--attn-implementation", "eager"),
        ("--device-map", "cpu", "--revision", "main"),
        ("--trust-remote-code", "--accept-licence"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_every_option_works(doctor, tiny_folder, arguments):
    code, out, err = doctor(tiny_folder, "--json", "--quiet", *arguments)
    assert (code, err) == (0, "")
    document = json.loads(out)
    given = dict(zip(arguments[::2], arguments[1::2], strict=False))
    assert document["memory"]["n_tokens"] == int(given.get("--tokens", CONTEXT))
    assert document["readout"]["dtype"] == given.get("--dtype", "float32")
    assert document["model"]["attention"] == given.get("--attn-implementation", "sdpa")


def test_every_option_is_in_a_test():
    from typer.main import get_command

    from iglens.cli.main import app

    command = get_command(app).commands["doctor"]
    flags = {flag for p in command.params for flag in p.opts if flag.startswith("--")}
    own = Path(__file__).read_text()
    assert {flag for flag in flags - {"--help"} if f'"{flag}"' not in own} == set()


def test_half_precision_reports_what_it_costs(doctor, tiny_folder):
    _, out, _ = doctor(tiny_folder, "--dtype", "bfloat16", "--json", "--quiet")
    document = json.loads(out)
    assert document["fidelity"]["precise"]["probability"] > 0
    assert document["precision"]["float32_model"]["probability"] > 0
    assert document["precision"]["not_measured"] is None


@pytest.mark.parametrize("tokens", ["1", "0", "x"])
def test_a_text_without_a_prediction_is_refused(doctor, tiny_folder, tokens):
    code, out, err = doctor(tiny_folder, "--tokens", tokens)
    assert (code, out) == (2, "")
    assert "--tokens" in err


def test_a_context_is_the_longest_text(doctor, tiny_folder):
    _, out, _ = doctor(tiny_folder, "--tokens", "100000", "--json", "--quiet")
    assert json.loads(out)["memory"]["n_tokens"] == CONTEXT


def test_warnings_go_to_stderr_unless_quiet(doctor, tmp_path):
    build("llama", vocab_size=11).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    _, out, err = doctor(tmp_path)
    assert "Warning: Measured on arbitrary token ids" in err
    assert "Warning" not in out
    assert doctor(tmp_path, "--quiet")[2] == ""


def test_the_model_may_be_half_precision_on_disk(doctor, tmp_path):
    build("llama", torch.float16).save_pretrained(tmp_path)
    code, out, _ = doctor(tmp_path, "--quiet")
    assert code == 0
    assert "states in float16, levels read in float32" in out


@pytest.mark.embedded
def test_without_a_name_the_embedded_model_is_examined(doctor):
    code, out, _ = doctor("--quiet")
    assert code == 0
    assert "smollm2 (LlamaForCausalLM)" in out


def test_help_of_the_doctor_does_not_wait_for_torch():
    code = (
        "import sys; from iglens.cli.main import run; code = run(['doctor', '--help']);"
        "sys.exit(code or bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
