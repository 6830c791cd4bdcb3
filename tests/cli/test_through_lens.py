"""`--lens` on `explain`, `diff` and `replay`: a file, the fitted one, or none."""

import json
import shutil

import numpy as np
import pytest
from families import build, some_ids, tokenizer

from iglens.cli.main import run

TEXT = "The capital of France is"
PARIS = ("--target", " Paris", "--quiet")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Enough documents to fit a tiny model on."""
    path = tmp_path_factory.mktemp("corpus") / "text.jsonl"
    words = "the capital of France is not a city in the north of"
    path.write_text(
        "\n".join(
            json.dumps({"text": " ".join(f"{words} {n}" for n in some_ids(4, seed))})
            for seed in range(20)
        )
    )
    return path


@pytest.fixture(scope="module")
def fitted(tiny_folder, corpus, tmp_path_factory):
    """A lens of the tiny model, as the command writes it."""
    path = tmp_path_factory.mktemp("lens") / "tiny.lens"
    fit = ("lens", "fit", tiny_folder, "--text", corpus, "--tokens", 900, "-o", path)
    assert run([*map(str, fit), "--quiet"]) == 0
    return path


@pytest.fixture
def call(tiny_folder, capsys, tmp_path, monkeypatch):
    """A command on the tiny model, with a cache of its own."""
    monkeypatch.setenv("IGLENS_CACHE", str(tmp_path / "cache"))

    def command(name, *arguments, model=tiny_folder):
        capsys.readouterr()
        named = () if model is None else ("-m", str(model))
        code = run([name, *map(str, arguments), *named])
        return code, *capsys.readouterr()

    return command


def document(found):
    code, out, err = found
    assert code == 0, err
    return json.loads(out)


def test_logit_is_what_there_is_without_the_option(call):
    plain = document(call("explain", TEXT, *PARIS, "--json"))
    named = document(call("explain", TEXT, *PARIS, "--json", "--lens", "logit"))
    assert plain["lens"] == named["lens"] == "logit"
    assert plain["levels"] == named["levels"]


def test_a_file_is_read_through_and_its_part_is_kept_apart(call, fitted):
    plain = document(call("explain", TEXT, *PARIS, "--json"))
    found = document(call("explain", TEXT, *PARIS, "--json", "--lens", fitted))
    assert found["lens"] == "ridge"
    assert found["settings"]["lens"] == str(fitted)
    assert found["final"] == plain["final"]  # the last translator is the identity
    assert abs(found["levels"][0][1] - plain["levels"][0][1]) > 1e-4
    base, final = found["baseline"][0], found["final"][0]
    assert base + sum(found["credits"][0]) == pytest.approx(final, abs=1e-12)
    moved = np.subtract(found["credits"], found["writes"])
    assert np.abs(moved).min() > 0  # every translator but the last differs


def test_auto_is_the_lens_that_was_fitted_here(call, fitted, tiny_folder, corpus):
    code, out, err = call("explain", TEXT, *PARIS, "--lens", "auto")
    assert (code, out) == (2, "")
    assert f"Fit one with `iglens lens fit {tiny_folder}`" in err
    fit = ("fit", tiny_folder, "--text", corpus, "--tokens", "900", "--quiet")
    code, _, err = call("lens", *fit, model=None)
    assert code == 0, err
    auto = document(call("explain", TEXT, *PARIS, "--json", "--lens", "auto"))
    named = document(call("explain", TEXT, *PARIS, "--json", "--lens", fitted))
    assert auto["levels"] == named["levels"]
    assert "taken from the cache" in " ".join(auto["warnings"])


def test_the_lens_is_named_and_its_part_is_printed(call, fitted):
    code, out, _ = call("explain", TEXT, *PARIS, "--lens", fitted)
    assert code == 0
    assert "ridge lens" in out.splitlines()[0]
    assert "Of each credit: what the block wrote, and what the lens changed" in out
    assert "' Paris' through the ridge lens: of its change of " in out
    _, out, _ = call("explain", TEXT, *PARIS)
    assert "the lens changed" not in out


def test_rivals_promotion_and_sensitivity_go_through_it(call, fitted):
    further = ("--rivals", "1", "--promotion", "--sensitivity")
    found = document(
        call("explain", TEXT, *PARIS, "--json", "--lens", fitted, *further)
    )
    assert found["flow"]["lens"] == found["promotion"]["lens"] == "ridge"
    np.testing.assert_allclose(found["flow"]["levels"], found["levels"], atol=1e-6)
    odds = np.array(found["promotion"]["levels"])
    np.testing.assert_allclose(1 / (1 + np.exp(-odds)), found["levels"], atol=1e-6)
    embedding = found["sensitivity"]["baselines"].index("embedding")
    assert found["sensitivity"]["baseline"][0][embedding] == found["baseline"][0]


def test_two_prompts_are_compared_through_it(call, fitted):
    other = "The capital of Rome is"
    found = document(call("diff", TEXT, other, *PARIS, "--json", "--lens", fitted))
    assert found["lens"] == found["a"]["lens"] == found["b"]["lens"] == "ridge"
    base, final = found["baseline"][0], found["final"][0]
    assert base + sum(found["credits"][0]) == pytest.approx(final, abs=1e-12)
    assert found["writes"] != found["credits"]
    _, out, _ = call("diff", TEXT, other, *PARIS, "--lens", fitted)
    assert out.count("' Paris' through the ridge ") == 1
    wrote, moved = sum(found["writes"][0]), sum(found["credits"][0])
    said = " ".join(out.split())
    assert f"lens: {wrote:+.3f} of a difference of {moved:+.3f} the blocks" in said
    assert f"wrote, {moved - wrote:+.3f} the lens changed." in said
    _, out, _ = call("diff", TEXT, other, *PARIS)
    assert "the lens changed" not in out


def test_results_through_two_lenses_are_not_compared(call, fitted, tmp_path):
    files = [tmp_path / "raw.json", tmp_path / "fitted.json"]
    for file, lens in zip(files, ("logit", fitted), strict=True):
        assert call("explain", TEXT, *PARIS, "--lens", lens, "-o", file)[0] == 0
    code, out, err = call("diff", *files, model=None)
    assert (code, out) == (2, "")
    assert "lens" in err
    assert err.count("\n") == 1


def test_two_models_need_a_lens_each(call, fitted, tmp_path):
    build("llama", seed=3).save_pretrained(tmp_path / "other")
    tokenizer(chat=True).save_pretrained(tmp_path / "other")
    against = ("--against", tmp_path / "other")
    code, out, err = call("diff", TEXT, *against, *PARIS, "--lens", fitted)
    assert (code, out) == (2, "")
    assert "unembedding" in err
    assert err.count("\n") == 1


def test_a_replay_finds_the_lens_again_and_says_if_it_is_another(
    call, fitted, corpus, tiny_folder, tmp_path
):
    lens, file = tmp_path / "mine.lens", tmp_path / "result.json"
    shutil.copy(fitted, lens)
    assert call("explain", TEXT, *PARIS, "--lens", lens, "-o", file)[0] == 0
    code, out, _ = call("replay", file, "--quiet", model=None)
    assert (code, out.split()[0]) == (0, "Identical,")
    fit = ("fit", tiny_folder, "--text", corpus, "--tokens", "900", "--ridge", "9")
    assert call("lens", *fit, "-o", lens, "--quiet", model=None)[0] == 0
    code, out, _ = call("replay", file, "--quiet", model=None)
    assert (code, out.split()[0]) == (2, "Changed:")
    assert "lens" in out
    lens.unlink()
    code, out, err = call("replay", file, "--quiet", model=None)
    assert (code, out) == (2, "")
    assert "mine.lens" in err
