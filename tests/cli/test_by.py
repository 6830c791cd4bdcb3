"""`--by`: every level from the command line, in every form, and what is refused."""

import json
import re
from importlib.resources import files

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from families import build, tokenizer
from jsonschema import Draft202012Validator
from transformers import MambaConfig, MambaForCausalLM

import iglens
from iglens.cli.main import run

TEXT = "The capital of France is"
PARIS = ("--target", " Paris", "--target", " Rome")
INSIDE = ("head", "neuron", "source")
SCHEMA = json.loads((files("iglens.data") / "attribution.schema.json").read_text())


@pytest.fixture
def explain(tiny_folder, capsys):
    def call(*arguments, model=tiny_folder):
        given = ["explain", TEXT, "-m", model, "--quiet", *arguments]
        code = run([*map(str, given)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def written(tiny_folder, tmp_path_factory):
    """Every form of the result of every level, by level: read and written once."""
    folder = tmp_path_factory.mktemp("by")
    for by in ("layer", "sublayer", *INSIDE):
        outputs = [
            word
            for extension in ("json", "csv", "parquet", "safetensors")
            for word in ("-o", str(folder / f"{by}.{extension}"))
        ]
        given = ["explain", TEXT, "-m", str(tiny_folder), *PARIS, "--by", by, *outputs]
        assert run([*given, "--quiet"]) == 0
    return folder


def document(written, by):
    return json.loads((written / f"{by}.json").read_text())


@pytest.mark.parametrize("by", ["sublayer", *INSIDE])
def test_levels_add_up_to_layers_from_the_json_alone(written, by):
    layers, found = document(written, "layer"), document(written, by)
    Draft202012Validator(SCHEMA).validate(found)
    assert [s["part"] for s in found["segments"]] == ["attention", "mlp"] * 3
    blocks = [f"model.layers.{layer - 1}" for layer in found["layers"]]
    assert [s["block"] for s in found["segments"]] == blocks
    assert [s["block"] for s in layers["segments"]] == [None] * 3
    for row in range(2):
        sums = dict.fromkeys(layers["layers"], 0.0)
        for layer, credit in zip(found["layers"], found["credits"][row], strict=True):
            sums[layer] += credit
        np.testing.assert_allclose([*sums.values()], layers["credits"][row], atol=1e-9)


@pytest.mark.parametrize("by", INSIDE)
def test_parts_and_others_add_up_to_segments_from_the_json_alone(written, by):
    found = document(written, by)
    inside = found["components"]
    assert inside["by"] == by
    for row in range(2):
        sums = list(inside["others"][row])
        for part, segment in enumerate(inside["segment"]):
            sums[segment] += inside["credits"][row][part]
        np.testing.assert_allclose(sums, found["credits"][row], atol=1e-15)
    closed = [{entry["segment"] for entry in inside["reasons"]}]
    assert closed == [{0, 2, 4} if by == "neuron" else {1, 3, 5}]
    for name in ("residual", "disagreement"):
        for numbers in inside["certificate"][name]:
            held = [n for n in numbers if n is not None]
            assert len(held) == 3
            assert max(map(abs, held)) <= inside["certificate"]["tolerance"]
    assert set(inside["kind"]) <= {by, "head bias"}


def test_sources_are_the_heads_and_tokens_the_sources_from_the_json_alone(written):
    heads, found = (document(written, by)["components"] for by in ("head", "source"))
    # ten are kept per row and segment: that is all heads, and not all pairs. States in
    # single precision are the sum of what heads write up to rounding.
    kept = np.zeros((2, 6))
    for part, segment in enumerate(found["segment"]):
        kept[:, segment] += [credits[part] for credits in found["credits"]]
    whole = np.zeros((2, 6))
    for part, segment in enumerate(heads["segment"]):
        whole[:, segment] += [credits[part] for credits in heads["credits"]]
    opened = [0, 2, 4]
    left_out = np.array(found["others"])
    np.testing.assert_allclose(
        (kept + left_out)[:, opened], whole[:, opened], atol=1e-6
    )
    tokens = np.array(found["tokens"])
    assert tokens.shape == (2, 6, 5)
    np.testing.assert_allclose(tokens.sum(2)[:, opened], whole[:, opened], atol=1e-6)


@pytest.mark.parametrize("extension", ["csv", "parquet"])
@pytest.mark.parametrize("by", ["sublayer", *INSIDE])
def test_lines_of_a_table_add_up_to_the_whole_change(written, by, extension):
    read = {"csv": pyarrow.csv.read_csv, "parquet": pyarrow.parquet.read_table}
    table = read[extension](written / f"{by}.{extension}").to_pandas()
    total = table.groupby("row").credit.sum()
    ends = table.groupby("row").agg({"final": "first", "baseline": "first"})
    np.testing.assert_allclose(total, ends.final - ends.baseline, atol=1e-12)
    credits = table.groupby(["row", "layer", "component"], sort=False).credit.sum()
    expected = document(written, by)["credits"]
    np.testing.assert_allclose(credits, np.ravel(expected), atol=1e-12)
    if by in INSIDE:
        assert {by, "others"} <= set(table.inside.dropna())
        assert table["index"].notna().sum() >= 6
        assert (table.source.notna().sum() > 0) == (by == "source")
    else:
        assert table[["inside", "index", "source"]].isna().all(axis=None)


@pytest.mark.parametrize("by", INSIDE)
def test_top_bounds_what_is_listed_and_drops_nothing(explain, written, by):
    _, out, _ = explain(*PARIS, "--by", by, "--top", 1, "--json")
    short, full = json.loads(out), document(written, by)
    inside = short["components"]
    numbered = [
        segment
        for segment, kind in zip(inside["segment"], inside["kind"], strict=True)
        if kind == by
    ]
    counts = [numbered.count(segment) for segment in set(numbered)]
    assert len(counts) == 3
    assert all(1 <= count <= 2 for count in counts)  # the largest of either row
    assert inside["n_parts"] == full["components"]["n_parts"]
    assert short["credits"] == full["credits"]
    for row in range(2):
        sums = list(inside["others"][row])
        for part, segment in enumerate(inside["segment"]):
            sums[segment] += inside["credits"][row][part]
        np.testing.assert_allclose(sums, short["credits"][row], atol=1e-15)


@pytest.mark.parametrize("by", INSIDE)
def test_what_is_printed_is_what_the_library_tells(explain, written, by):
    code, out, _ = explain(*PARIS, "--by", by)
    assert code == 0
    assert re.search(r"^' Paris' at 5 by .* in all\):$", out, re.M)
    assert len(re.findall(r"\blayer \d (?:head|neuron) \d+", out)) >= 10
    assert "Certified: integrals missed" in out
    loaded = iglens.Attribution.load(written / f"{by}.safetensors")
    assert " ".join(out.split()).count("in all):") == loaded.n_rows
    printed, told = (" ".join(text.split()) for text in (out, str(loaded)))
    inside = told[told.index("' Paris' at 5 by") : told.index("Verified:")]
    assert without_rounding(inside) in without_rounding(printed)


def without_rounding(text):
    """Numbers of rounding differ where parts were left out, or from run to run."""
    return re.sub(r"[+-]?\b\de-\d\d\b", "~", text)


def test_no_more_parts_are_told_than_are_the_largest_for_certain(explain):
    """Of two rows, each keeps its own: what one kept says little of the other."""
    _, out, _ = explain(*PARIS, "--by", "neuron", "--top", 2)
    told = out.split(" in all):")[1:]
    assert [len(re.findall(r"^  \S+ layer \d neuron", t, re.M)) for t in told] == [2, 2]


@pytest.mark.parametrize("by", ["layer", "sublayer"])
def test_nothing_is_inside_whole_layers_and_sublayers(written, by):
    assert document(written, by)["components"] is None


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--by", "word"), "`by` is 'word'; known are layer, sublayer, head, neuron"),
        (("--by", "head", "--target", "@entropy"), "Use `sublayer`."),
        (("--by", "neuron", "--target", "@kl"), "only levels of tokens can"),
        (("--by", "head", "--estimator", "gradient"), "Leave the estimator out."),
        (("--by", "head", "--top", "0"), "greater than or equal to 1"),
        (("--by", "head", "--layers", "3"), "does not stop at both its ends"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_opened_is_refused_in_one_line(explain, arguments, line):
    target = () if "--target" in arguments else PARIS
    code, out, err = explain(*target, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("iglens: ")
    assert err.count("\n") == 1
    assert line in err


def test_entropy_has_sublayers(explain):
    code, out, _ = explain("--target", "@entropy", "--by", "sublayer", "--json")
    assert code == 0
    found = json.loads(out)
    change = found["final"][0] - found["baseline"][0]
    assert sum(found["credits"][0]) == pytest.approx(change, abs=1e-9)


@pytest.fixture(scope="module")
def without_attention(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mamba")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 97}
    MambaForCausalLM(MambaConfig(**sizes, state_size=4)).save_pretrained(folder)
    tokenizer(chat=True).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("by", INSIDE)
def test_a_model_without_attention_says_why_in_one_line(explain, without_attention, by):
    code, out, err = explain(*PARIS, "--by", by, model=without_attention)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "there is nothing to split" in err


def test_experts_are_told_where_neurons_are_asked_for(explain, tmp_path):
    build("qwen3 moe").save_pretrained(tmp_path)
    tokenizer(chat=True).save_pretrained(tmp_path)
    code, out, _ = explain(*PARIS, "--by", "neuron", model=tmp_path)
    assert code == 0
    assert re.search(r"[+-]\S+ layer \d expert \d", out)


@pytest.mark.parametrize("by", ["sublayer", "head"])
def test_saved_results_are_replayed_and_compared(written, tmp_path, capsys, by):
    file = written / f"{by}.safetensors"
    assert run(["replay", str(file), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Identical, bit for bit: 2 rows of 7 levels")
    assert ("saved parts (by head)" in out) == (by == "head")
    assert run(["diff", str(file), str(file)]) == 0
    out, err = capsys.readouterr()
    assert "No layer differs beyond rounding." in out
    assert ("Note: What is inside the segments is not compared" in err) == (
        by == "head"
    )


@pytest.mark.parametrize("by", ["sublayer", "head"])
def test_two_prompts_are_compared_part_by_part(tiny_folder, capsys, by):
    given = ("-m", tiny_folder, *PARIS, "--by", by, "--json", "--quiet")
    code = run([*map(str, ("diff", TEXT, "The capital of Rome is", *given))])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [s["part"] for s in found["segments"]] == ["attention", "mlp"] * 3
    sides = [np.array(found[side]["credits"]) for side in ("a", "b")]
    np.testing.assert_allclose(found["credits"], sides[1] - sides[0], atol=1e-12)
    assert (found["a"]["components"] is None) == (by == "sublayer")


def test_both_runs_of_a_difference_keep_as_many_parts(tiny_folder, capsys):
    given = ("-m", tiny_folder, "--target", " Paris", "--by", "neuron", "--top", 3)
    asked = ("diff", TEXT, "The capital of Rome is", *given, "--json", "--quiet")
    assert run([*map(str, asked)]) == 0
    found = json.loads(capsys.readouterr().out)
    for side in ("a", "b"):
        inside = found[side]["components"]
        assert [inside["segment"].count(at) for at in (1, 3, 5)] == [3] * 3
        assert found[side]["settings"]["top"] == 3


def test_paths_through_parts_and_layers_say_how_to_compare_them(written, capsys):
    pair = [str(written / f"{by}.json") for by in ("layer", "head")]
    assert run(["diff", *pair]) == 2
    err = capsys.readouterr().err
    assert "6 segments with attention, mlp in the second" in err
    assert err.count("\n") == 1
    assert run(["diff", *pair, "--layers", "1,2,3", "--quiet"]) == 0
