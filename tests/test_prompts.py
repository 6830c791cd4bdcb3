"""The prompts that come with the package: as their script makes them, each once."""

import importlib.util
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from iglens.data import prompts

SCRIPT = Path(__file__).parents[1] / "tools/make_prompts.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_prompts", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_what_the_script_writes(script):
    assert (files("iglens.data") / "prompts.jsonl").read_bytes() == script.written()


def test_there_are_a_few_hundred_of_every_kind():
    found = prompts()
    assert 250 < len(found) < 500
    assert {each["kind"] for each in found} == {"factual", "grammatical", "relational"}
    assert min(Counter(each["relation"] for each in found).values()) >= 4


@pytest.mark.parametrize("field", ["id", "prompt"])
def test_none_is_there_twice(field):
    assert max(Counter(each[field] for each in prompts()).values()) == 1


def test_a_prompt_goes_on_with_its_answer_and_does_not_give_it_away():
    for each in prompts():
        assert set(each) == {"id", "relation", "kind", "prompt", "subject", "answer"}
        assert not each["prompt"].endswith(" ")
        assert each["answer"].startswith(" ") != each["prompt"].endswith('"')
        assert each["subject"] in each["prompt"]
        if each["kind"] == "factual":
            words = each["prompt"].replace('"', " ").split()
            assert each["answer"].strip() not in words


@pytest.mark.embedded
def test_answers_are_continuations_for_the_embedded_model(embedded):
    for each in prompts():
        ids = embedded.encode(each["prompt"])
        assert embedded.encode_answer(ids, each["answer"])


def test_prompts_are_there_without_an_import_of_their_own():
    code = "import iglens; print(len(iglens.data.prompts()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == len(prompts())
