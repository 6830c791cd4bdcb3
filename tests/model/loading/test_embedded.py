import os
import signal
import subprocess
import sys
import time

import pytest
from fake_wheels import copy_convert, fake_model, write_download

from iglens.errors import ArgumentError, ArtifactError, ModelLoadError
from iglens.model.loading.catalogue import EMBEDDED, Probe
from iglens.model.loading.convert import check_probe
from iglens.model.loading.embedded import (
    build,
    cached_path,
    ensure,
    is_embedded,
    manifest,
    status,
)

PATH = os.pathsep.join(path for path in sys.path if path)


def python(code, *arguments):
    command = [sys.executable, "-P", "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": PATH}, stdout=subprocess.PIPE
    )


def test_an_unknown_name_lists_the_known_ones():
    assert is_embedded("smollm2")
    assert not is_embedded("gpt2")
    with pytest.raises(ArgumentError, match=r"'gpt2'.*smollm2, gemma3-270m"):
        ensure("gpt2")


def test_the_catalogue_is_pinned():
    for name, model in EMBEDDED.items():
        assert name == model.name
        assert len(model.wheels) == len(model.files)
        assert all("==" in wheel for wheel in model.wheels)
        assert len(model.sha256) == 64


def test_terms_must_be_accepted_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path))
    with pytest.raises(ArgumentError, match=r"Gemma Terms of Use.*--accept-licence"):
        ensure("gemma3-270m")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_cached_in_a_new_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path))
    assert cached_path("smollm2") is None
    assert [(one.name, one.cached, one.path) for one in status()] == [
        ("smollm2", False, None),
        ("gemma3-270m", False, None),
    ]


def test_asking_does_not_import_torch():
    code = (
        "import sys; from iglens.model.loading.embedded import status; status();"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    with python(code) as child:
        assert child.wait() == 0


def test_the_stages_are_told_in_order_and_the_second_time_none(tmp_path):
    told = []

    def progress(stage, done, total):
        told.append(stage)

    def convert(model, gguf, folder, progress):
        progress("converting", 0, None)
        copy_convert(model, gguf, folder, progress)

    parts = {"download": write_download, "convert": convert, "progress": progress}
    first = build(fake_model(), tmp_path, **parts)
    assert list(dict.fromkeys(told)) == ["verifying", "converting"]
    told.clear()
    assert build(fake_model(), tmp_path, **parts) == first
    assert told == []


RACE = """
import sys, time
from pathlib import Path
from fake_wheels import copy_convert, fake_model, write_download
from iglens.model.loading.embedded import build

def convert(model, gguf, folder, progress):
    with open(sys.argv[2], "a") as diary:
        diary.write("converted\\n")
    time.sleep(0.5)
    copy_convert(model, gguf, folder, progress)

def progress(stage, done, total):
    print(stage, flush=True)

place = Path(sys.argv[1])
build(fake_model(), place, download=write_download, convert=convert, progress=progress)
"""


def test_of_two_first_runs_one_converts_and_the_other_waits(tmp_path):
    models, diary = tmp_path / "models", tmp_path / "diary"
    children = [python(RACE, models, diary) for _ in range(2)]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert diary.read_text() == "converted\n"
    assert sum(b"waiting for another run" in text for text in said) == 1
    assert sorted(path.name for path in models.iterdir()) == [".fake.lock", "fake"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, ModelLoadError, ZeroDivisionError]
)
def test_a_failed_conversion_leaves_nothing_behind(tmp_path, error):
    def convert(model, gguf, folder, progress):
        copy_convert(model, gguf, folder, progress)
        raise error

    with pytest.raises(error):
        build(fake_model(), tmp_path, download=write_download, convert=convert)
    assert [path.name for path in tmp_path.iterdir()] == [".fake.lock"]


def test_changed_weights_are_never_converted_or_kept(tmp_path):
    model = fake_model(sha256="0" * 64)
    with pytest.raises(ArtifactError, match="Nothing was kept"):
        build(model, tmp_path, download=write_download, convert=no_convert)
    assert [path.name for path in tmp_path.iterdir()] == [".fake.lock"]


def no_convert(model, gguf, folder, progress):
    raise AssertionError("converted")


def test_what_a_dead_run_left_is_cleaned_up(tmp_path):
    stale = tmp_path / ".fake.0123abcd.partial"
    stale.mkdir()
    (stale / "half").write_bytes(b"half")
    other = tmp_path / ".other.0123abcd.partial"
    other.mkdir()
    build(fake_model(), tmp_path, download=write_download, convert=copy_convert)
    assert not stale.exists()
    assert other.exists()


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
from pathlib import Path
from fake_wheels import fake_model, write_download
from iglens.model.loading.child import run
from iglens.model.loading.embedded import build

def convert(model, gguf, folder, progress):
    sleep = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    log = gguf.with_name("log")
    told = []
    def tick():
        if log.read_text() and not told:
            told.append(print(log.read_text(), flush=True))
    run([sys.executable, "-c", sleep], log=log, tick=tick)

try:
    build(fake_model(), Path(sys.argv[1]), download=write_download, convert=convert)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_takes_the_child_and_the_half_made_files_along(tmp_path):
    with python(INTERRUPTED, tmp_path) as parent:
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGINT)
        assert parent.stdout.read().split() == [b"stopped"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [path.name for path in tmp_path.iterdir()] == [".fake.lock"]


def test_a_failing_conversion_says_why_in_one_line(tmp_path):
    model = fake_model(name="smollm2")  # known to the child, but no GGUF
    with pytest.raises(ModelLoadError) as caught:
        build(model, tmp_path, download=write_download)
    assert "`smollm2` could not be converted: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [".smollm2.lock"]


@pytest.fixture(scope="module")
def smollm2():
    return ensure("smollm2")


@pytest.mark.embedded
def test_smollm2_is_there_at_once_and_says_what_it_is(smollm2):
    began = time.perf_counter()
    assert ensure("smollm2") == smollm2
    assert time.perf_counter() - began < 0.1
    content = manifest(smollm2)
    assert content["gguf_sha256"] == EMBEDDED["smollm2"].sha256
    assert content["note"] == "Q4_1 dequantised to float16"


@pytest.mark.embedded
def test_smollm2_continues_the_capital_of_france_with_paris(smollm2):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (30, 576)
    assert model.config.max_position_embeddings == 8192
    assert model.generation_config.eos_token_id == 2
    batch = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        probabilities = model(**batch).logits[0, -1].softmax(-1)
    best = int(probabilities.argmax())
    assert tokenizer.decode([best]) == " Paris"
    assert float(probabilities[best]) == pytest.approx(0.7727, abs=1e-3)


@pytest.mark.embedded
def test_a_conversion_that_went_wrong_would_be_noticed(smollm2):
    check_probe(EMBEDDED["smollm2"].probe, smollm2)
    with pytest.raises(ModelLoadError, match=r"0\.7727 instead of 0\.5000"):
        check_probe(Probe("The capital of France is", " Paris", 0.5), smollm2)


@pytest.mark.embedded
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("The capital of France is", [504, 3575, 282, 4649, 314]),
        ("<|im_start|>user\nHi<|im_end|>", [1, 4093, 198, 26843, 2]),
        ("in 2024", [254, 216, 34, 32, 34, 36]),
        ("", []),
    ],
)
def test_smollm2_tokenizes_as_the_gguf_says(smollm2, text, ids):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer(text).input_ids == ids  # nothing added: add_bos_token is false
    assert tokenizer.decode(ids) == text


@pytest.mark.embedded
def test_smollm2_sets_digits_apart_before_anything_else(smollm2):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.tokenize("x  7") == ["x", "ĠĠ", "7"]
    assert tokenizer.tokenize("x\n 42") == ["x", "ĊĠ", "4", "2"]


@pytest.mark.embedded
def test_smollm2_keeps_its_special_tokens_and_chat_template(smollm2):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|im_start|>", 1)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert tokenizer.pad_token_id == 2
    assert tokenizer.unk_token == "<|endoftext|>"
    assert tokenizer.model_max_length == 8192
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert asked.startswith("<|im_start|>system\nYou are a helpful AI assistant")
    assert asked.endswith("user\nHi<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.embedded
@pytest.mark.slow
def test_gemma_continues_the_capital_of_france_with_the():
    from transformers import AutoTokenizer

    folder = cached_path("gemma3-270m")
    if folder is None:
        pytest.skip("gemma3-270m is fetched only by who accepts its terms")
    check_probe(EMBEDDED["gemma3-270m"].probe, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("Hello  world").input_ids == [2, 9259, 138, 12392]
    assert tokenizer.model_max_length == 32768
