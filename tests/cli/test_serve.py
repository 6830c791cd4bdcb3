import subprocess
import sys

import pytest
from isolated import run_python
from typer.testing import CliRunner

from iglens.cli.main import app
from iglens.cli.serve import lenses_of
from iglens.errors import ArgumentError, IGLensError


def serve(*words):
    return CliRunner().invoke(app, ["serve", *words])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "add `--expose`"),
        (["--token", "short"], "16 ASCII characters"),
        (["--port", "99999"], "Cannot listen"),
        (["-m", "/no/such/folder", "--port", "0"], "/no/such/folder"),
        (["--port", "0", "--also", "/a/smollm2"], "another model is called smollm2"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_listens(words, told):
    result = serve(*words)
    assert isinstance(result.exception, IGLensError)
    assert told in str(result.exception)


def test_the_command_line_starts_without_the_extra_and_says_what_to_install():
    run_python(
        "import sys\n"
        "for name in ('fastapi', 'uvicorn', 'starlette'):\n"
        "    sys.modules[name] = None\n"
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "hidden = {'fastapi', 'uvicorn'}\n"
        "import iglens.cli.serve as s\n"
        "s.find_spec = lambda name: None if name in hidden else found(name)\n"
        "from iglens.cli.main import run\n"
        "assert run(['--version']) == 0\n"
        "assert run(['serve', '--help']) == 0\n"
        "assert run(['serve']) == 2\n"
    )


def test_the_line_names_the_command_that_installs_it():
    code = (
        "import iglens.cli.serve as s; s.find_spec = lambda name: None\n"
        "from iglens.cli.main import run; run(['serve'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == (
        'iglens: `iglens serve` needs fastapi and uvicorn: pip install "iglens[serve]".'
    )


def test_help_imports_neither_torch_nor_a_web_framework():
    run_python(
        "import sys, iglens.cli.main\n"
        "assert not {'torch', 'fastapi', 'uvicorn'} & set(sys.modules)"
    )


def test_lenses_are_chosen_by_the_names_of_their_files(
    tmp_path, tiny_folder, monkeypatch
):
    import iglens

    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path / "cache"))
    decoder = iglens.Decoder.from_pretrained(tiny_folder)
    assert lenses_of(decoder, []) == {}
    lens = iglens.fit_lens(decoder, ["The capital of France is Paris"] * 12)
    for name in ("one", "logit"):
        lens.save(tmp_path / f"{name}.safetensors")
    found = lenses_of(decoder, [tmp_path / "one.safetensors"])
    assert list(found) == ["one"]
    with pytest.raises(ArgumentError, match="the name logit is taken"):
        lenses_of(decoder, [tmp_path / "logit.safetensors"])
    with pytest.raises(ArgumentError, match="the name one is taken"):
        lenses_of(decoder, 2 * [tmp_path / "one.safetensors"])
