import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from iglens.cli.models import models_app
from iglens.errors import ArgumentError

PATH = os.pathsep.join(path for path in sys.path if path)
RUN = "from iglens.cli.models import models_app; models_app()"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A new cache of ours, and none of Hugging Face's."""
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("PYTHONPATH", PATH)
    return tmp_path


def models(*arguments):
    return CliRunner().invoke(models_app, arguments)


def test_the_list_says_how_to_get_what_is_missing(cache):
    result = models()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "SOURCE", "LICENCE", "SIZE", "WHERE"]
    assert lines[1].split()[:3] == ["smollm2", "embedded", "Apache-2.0"]
    assert lines[1].endswith("93 MB   to download: iglens models fetch smollm2")
    assert lines[2].startswith("gemma3-270m  embedded  Gemma Terms of Use  238 MB")
    assert result.stderr == ""


def test_the_list_as_json(cache):
    result = models("--json")
    assert result.exit_code == 0
    first = json.loads(result.stdout)["models"][0]
    assert first == {
        "name": "smollm2",
        "title": "SmolLM2-135M-Instruct",
        "source": "embedded",
        "licence": "Apache-2.0",
        "cached": False,
        "bytes": 92_871_040,
        "path": None,
    }


def test_an_unknown_name_is_refused(cache):
    result = models("fetch", "gpt2")
    assert isinstance(result.exception, ArgumentError)
    assert "smollm2, gemma3-270m" in str(result.exception)
    assert result.stdout == ""


def test_terms_are_refused_where_nobody_can_be_asked(cache):
    result = models("fetch", "gemma3-270m")
    assert isinstance(result.exception, ArgumentError)
    assert "--accept-licence" in str(result.exception)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo terminals")
@pytest.mark.parametrize(("answer", "agreed"), [(b"n\n", False), (b"y\n", True)])
def test_a_person_at_a_terminal_is_asked(cache, monkeypatch, answer, agreed):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # agreeing gets as far as the download
    ours, theirs = os.openpty()
    command = [sys.executable, "-P", "-c", RUN, "fetch", "gemma3-270m"]
    with subprocess.Popen(
        command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE
    ) as child:
        os.close(theirs)
        os.write(ours, answer)
        said = read_all(ours)
        assert child.stdout.read() == b""
    assert "https://ai.google.dev/gemma/terms" in said
    assert ("ModelLoadError" in said) is agreed
    assert ("ArgumentError" in said) is not agreed


def read_all(terminal):
    said = b""
    try:
        while block := os.read(terminal, 4096):
            said += block
    except OSError:  # how a pseudo terminal ends on Linux
        pass
    os.close(terminal)
    return said.decode()


def test_progress_that_nobody_watches_is_a_line_per_stage(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    loud, quiet = models("fetch", "smollm2"), models("fetch", "smollm2", "--quiet")
    assert loud.stderr.strip() == "smollm2: fetching (93 MB)"
    assert loud.stdout == quiet.stdout == quiet.stderr == ""


@pytest.mark.embedded
def test_fetching_what_is_there_prints_its_folder_and_nothing_else():
    result = models("fetch", "smollm2")
    assert result.exit_code == 0
    assert result.stdout.strip().endswith("smollm2")
    assert result.stderr == ""


def test_help_does_not_wait_for_torch():
    code = (
        "import sys; import iglens.cli.models;"
        "heavy = {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules);"
        "sys.exit(bool(heavy))"
    )
    command = [sys.executable, "-P", "-c", code]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": PATH})
