"""What the documentation shows is what the program does."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from iglens.cli.main import run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def block(path, name):
    text = (ROOT / path).read_text()
    return text.split(f"<!-- {name}:begin -->\n")[1].split(f"\n<!-- {name}:end -->")[0]


def without_rounding(text):
    """Sizes of rounding errors differ from machine to machine."""
    return re.sub(r"\b(\de-\d\d|0)(?=[\s.;)])", "~", " ".join(text.split()))


def in_fresh_interpreter(name):
    """What a block would be now, made without this test run's settings."""
    import subprocess

    code = f"import generate; print(generate.{name}())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "docs",
        check=True,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    return done.stdout.rstrip("\n")


def test_the_help_in_the_docs_is_the_help():
    assert block("docs/cli.md", "help") == in_fresh_interpreter("help_pages")


@pytest.mark.slow
@pytest.mark.embedded
def test_the_output_in_the_readme_is_the_output():
    shown, now = block("README.md", "output"), in_fresh_interpreter("first_output")
    assert without_rounding(shown) == without_rounding(now)


@pytest.mark.embedded
@pytest.mark.slow
def test_the_difference_in_the_docs_is_the_output():
    shown = block("docs/two-runs.md", "two-prompts")
    now = in_fresh_interpreter("two_prompts")
    one, other = (
        re.sub(r"\d+ of 30 segments", "~ segments", without_rounding(text))
        for text in (shown, now)
    )
    assert one == other


ANSWERS = ("targets", "contrast", "answer", "rivals", "promotion", "sensitivity")


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("name", ANSWERS)
def test_the_answers_in_the_docs_are_the_output(name):
    now = in_fresh_interpreter(f"{name}_output")
    shown = block("docs/answers.md", name)
    assert without_rounding(shown) == without_rounding(now)


INSIDE = ("sublayers", "interaction", "heads", "neurons", "sources")


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("name", INSIDE)
def test_what_is_inside_layers_in_the_docs_is_the_output(name):
    now = in_fresh_interpreter(f"{name}_output")
    shown = block("docs/inside.md", name)
    assert without_rounding(shown) == without_rounding(now)


def steady(text):
    """Without seconds, and without digits of integrals that hardly converge."""
    lines = []
    for line in text.splitlines():
        if line.startswith("conductance, "):
            line = re.sub(r"[-+]?\d*\.\d+", "~", line)
        lines.append(re.sub(r"\s[\d.]+$", " ~", line))
    return without_rounding(re.sub(r"\d+\.\d s\s+more", "~", "\n".join(lines)))


CAUSAL = {"audit": ("audit", "gates"), "compare": ("compare",)}


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "name"), [(page, name) for page, names in CAUSAL.items() for name in names]
)
def test_audits_and_comparisons_in_the_docs_are_the_output(page, name):
    now = in_fresh_interpreter(f"{name}_output")
    assert steady(block(f"docs/{page}.md", name)) == steady(now)


CORPUS = ("summary", "two-runs")


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_statistics_in_the_docs_are_the_output(name):
    now = in_fresh_interpreter(f"{name.replace('-', '_')}_output")
    one, other = (
        re.sub(r"settings [0-9a-f]{12}", "settings ~", without_rounding(text))
        for text in (block("docs/corpus.md", name), now)
    )
    assert one == other


@pytest.mark.embedded
@pytest.mark.slow
def test_the_python_of_the_page_on_corpora_runs(generate, monkeypatch, tmp_path):
    page, known = (ROOT / "docs/corpus.md").read_text(), {}
    first, *others = re.findall(r"```python\n(.*?)```", page, re.S)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "The capital of France is"}\n')
    monkeypatch.chdir(tmp_path)
    exec(first, known)
    assert known["outcome"].complete
    monkeypatch.chdir(generate._runs())
    for code in others:
        exec(code, known)
        if "found" in known:
            known[type(known["found"]).__name__] = known["found"]
    summary, difference = known["Summary"], known["RunDifference"]
    assert summary.whole[0].n_prompts == 100
    mean = summary.whole[0].levels.mean
    change = float(mean[-1] - mean[0])
    assert abs(summary.whole[0].credits.mean.sum() - change) < 1e-9
    assert difference.groups[0].final.low > 0


def test_every_generated_block_is_compared(generate):
    blocks = set(generate.BLOCKS)
    for page, names in CAUSAL.items():
        assert {(f"docs/{page}.md", name) for name in names} <= blocks
        blocks -= {(f"docs/{page}.md", name) for name in names}
    pages = (("answers", ANSWERS), ("inside", INSIDE), ("corpus", CORPUS))
    for page, known in pages:
        mine = {(path, name) for path, name in blocks if path == f"docs/{page}.md"}
        assert {name for _, name in mine} == set(known)
        blocks -= mine
    assert len(blocks) == 4  # each of these has a test of its own


@pytest.mark.slow
@pytest.mark.embedded
def test_the_python_of_the_page_on_insides_runs_and_adds_up():
    page = (ROOT / "docs/inside.md").read_text()
    known = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(code, known)
    result, inside, trace = known["result"], known["inside"], known["trace"]
    assert abs(inside.totals - result.credits).max() < 1e-12
    assert abs(result.by_layer.credits - known["layers"].credits).max() < 1e-6
    assert inside.certified
    assert abs(known["heads"].components.credits - inside.credits).max() < 1e-6
    read = known["read"].components
    assert read.tokens.shape == (1, 60, len(trace.token_ids))
    own = known["own"].components
    assert own.kinds == ("direction",) * 3 + ("error",)
    assert abs(own.totals - known["own"].credits).max() < 1e-12


@pytest.mark.embedded
@pytest.mark.slow
def test_the_commands_of_the_page_on_insides_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/inside.md").read_text()
    commands = re.findall(r"^iglens (explain .*)$", page, re.M)
    assert len(commands) == 4
    for command in commands:
        assert run(shlex.split(command)) == 0, capsys.readouterr().err
    assert (tmp_path / "neurons.parquet").exists()


@pytest.mark.embedded
def test_the_python_of_the_answers_page_runs_and_adds_up():
    page = (ROOT / "docs/answers.md").read_text()
    known = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.S):
        exec(code, known)
    answer, flow, split = (known[name] for name in ("answer", "flow", "promotion"))
    for missed in answer.completeness.values():
        assert abs(missed).max() < 1e-9
    assert abs(flow.completeness[flow.integrated]).max() < 1e-12
    assert abs(split.promotion + split.competition - split.credits).max() < 1e-9
    assert abs(split.temperature + split.preference - split.credits).max() < 1e-9
    assert known["sensitivity"].moved.max() == 0
    assert known["contrast"].targets[0].kind == "contrast"


@pytest.mark.embedded
@pytest.mark.slow
def test_the_double_norm_figures_are_what_the_script_prints():
    assert block("docs/method.md", "double-norm") == in_fresh_interpreter("double_norm")


def test_the_figures_in_the_readme_are_those_of_the_script():
    table = block("docs/method.md", "double-norm")
    readme = (ROOT / "README.md").read_text()
    once, twice = re.search(r"\| `of` \| (\S+) \| \S+ \| (\S+) \|", table).groups()
    worst = re.search(r"by (0\.\d+) at most", " ".join(table.split()))[1]
    assert f"{float(once):.3f}" in readme
    assert twice in readme
    assert worst in readme


@pytest.mark.embedded
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    assert len(code.strip().splitlines()) <= 9
    exec(code.replace("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2"), {})
    assert (tmp_path / "paris.safetensors").exists()
    assert "0.70" in capsys.readouterr().out


@pytest.mark.embedded
@pytest.mark.slow
def test_the_commands_of_the_readme_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"^iglens ((?:explain|doctor) .*)$", text, re.M))
    assert len(commands) >= 3
    for command in commands:
        assert run(shlex.split(command)) == 0, capsys.readouterr().err


def test_every_link_between_pages_leads_somewhere():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        if "_build" in page.parts:
            continue
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_make_target_is_explained():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    pages = (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "README.md").read_text()
    assert {t for t in targets if f"make {t}" not in pages} <= {"help", "clean"}
