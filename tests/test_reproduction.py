"""The reproduction's short form, its arithmetic, and its page."""

import contextlib
import io
import re

import numpy as np
import pytest

import iglens
from reproduction import subjects
from reproduction.__main__ import main
from reproduction.monotone import steps_back
from reproduction.page import PAGE, SECTIONS, filled
from reproduction.section import SHORT, mean_and_worst, percent, small

TEXT = PAGE.read_text(encoding="utf-8")


def lines_of(text):
    """Rows of a table as lists of cells, its head first."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if "|" in line]
    return [[cell.strip() for cell in row] for row in rows if set(row[0]) - set("-")]


def block(text, name):
    return text.split(f"<!-- {name}:begin -->")[1].split(f"<!-- {name}:end -->")[0]


@pytest.fixture(scope="module")
def printed():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["--short"])
    parts = re.split(r"^## (\S+)$", out.getvalue(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def column(printed, name, title, **where):
    """Cells of a column, of the rows that have certain cells."""
    head, *rows = lines_of(printed[name])
    kept = [
        row for row in rows if all(row[head.index(k)] == v for k, v in where.items())
    ]
    assert kept
    return [row[head.index(title)] for row in kept]


@pytest.mark.slow
def test_the_short_form_prints_every_section_and_leaves_the_page_alone(printed):
    assert list(printed) == ["models", *(section.name for section in SECTIONS)]
    for name, text in printed.items():
        head, *rows = lines_of(text)
        models = {row[0] for row in rows}
        assert models == set(subjects.SHORT), name
        assert all(len(row) == len(head) for row in rows)
        assert "nan" not in text
    assert PAGE.read_text(encoding="utf-8") == TEXT


def number(cell):
    return float(cell.split()[0])


@pytest.mark.slow
def test_the_observed_estimator_adds_up_and_the_gradient_approaches(printed):
    for dtype in ("float32", "float64"):
        for steps in ("1 steps", "4 steps"):
            exact = column(
                printed, "completeness", steps, estimator="observed", readout=dtype
            )
            assert all(number(cell) < 1e-12 for cell in exact)
        few, many = (
            column(
                printed,
                "completeness",
                f"{n} steps",
                estimator="gradient, midpoint",
                readout=dtype,
            )
            for n in SHORT.steps
        )
        for one, more in zip(few, many, strict=True):
            assert number(one) > 4 * number(more) > 1e-5


@pytest.mark.slow
def test_conductance_counts_the_change_once_per_layer(printed):
    counts = column(
        printed, "conductance", "sum / change", rule="conductance, trapezoid", steps="8"
    )
    assert all(7 < number(count) < 9 for count in counts)


@pytest.mark.slow
def test_direct_logit_attribution_adds_up_in_logits_alone(printed):
    own = column(printed, "dla", "its own sum misses, at most", unit="logit")
    errors = column(printed, "dla", "error: mean (largest)", unit="logit")
    assert all(number(cell) < 1e-9 for cell in own)
    assert all(number(cell) > 1e-3 for cell in errors)
    exact = column(printed, "dla", "error: mean (largest)", unit="probability")
    assert all(number(cell) < 1e-9 for cell in exact)


@pytest.mark.slow
def test_double_norms_are_refused_and_add_up(printed):
    assert set(column(printed, "double-norm", "refused")) == {"100%"}
    missed = column(printed, "double-norm", "sum of credits misses, at most")
    assert all(number(cell) < 1e-9 for cell in missed)
    once = column(printed, "double-norm", "total variation, normed once, at most")
    twice = column(printed, "double-norm", "normed twice, mean")
    for right, wrong in zip(once, twice, strict=True):
        assert 100 * number(right) < number(wrong)
    errors = column(printed, "double-norm", "error: mean (largest)")
    assert all(number(cell) > 1e-3 for cell in errors)


def test_steps_back_are_against_the_direction_of_the_whole():
    credits = np.array([[0.5, -0.25, 0.5], [0.5, -1.0, 0.0]])
    assert steps_back(credits).tolist() == [[0, 0.25, 0], [0.5, 0, 0]]


@pytest.mark.slow
def test_only_fitted_lenses_have_a_part_in_credits(printed):
    name = "of that, the translators' part"
    assert set(column(printed, "lens-credits", name, lens="raw")) == {"0.00"}
    assert all(
        number(cell) > 0.1
        for cell in column(printed, "lens-credits", name, lens="fitted")
    )


@pytest.mark.slow
def test_a_fitted_lens_comes_closer_to_what_the_model_says(printed):
    head, *rows = lines_of(printed["lens-quality"])
    first = head.index("KL in bits, raw")
    assert all(float(row[first + 1]) < float(row[first]) for row in rows)


@pytest.mark.slow
def test_costs_are_those_of_each_method(printed):
    for title, back in (("IG-Lens", "0"), ("conductance, trapezoid", "33")):
        assert set(column(printed, "cost", "passes back", method=title)) == {back}
    assert set(column(printed, "cost", "passes", method="IG-Lens")) == {"1"}
    skipped = column(printed, "cost", "passes", method="(skipping every layer)")
    assert set(skipped) == {"10"}  # each of eight layers, none, and all


@pytest.mark.slow
def test_the_gate_path_finds_what_prepares(printed):
    model = "move, then read"
    gates, credit = (
        max(
            number(c)
            for c in column(printed, "audit", "all layers", model=model, numbers=n)
        )
        for n in ("gate path", "credit")
    )
    assert gates > 0.8 > credit


def test_subjects_are_asked_what_they_know():
    subject = subjects.planted("induction", 6, 1)
    assert len(subject.facts) == subject.known <= subject.asked == 6
    for fact in subject.facts:
        result = iglens.explain(
            subject.decoder, list(fact.ids), target=fact.target, diagnostics=True
        )
        assert result.rank[0, -1] == 1
    other = subjects.planted("induction", 6, 2)
    assert other.facts != subject.facts


def test_lenses_are_judged_on_other_texts_than_they_learned_from():
    subject = subjects.planted("induction", 1, 1)
    assert len(subject.texts) == subjects.LEARNED_FROM
    assert len(subject.judged) == subjects.JUDGED_ON
    assert not set(subject.texts) & set(subject.judged)


@pytest.mark.embedded
@pytest.mark.slow
def test_the_first_prompts_of_a_sample_are_a_sample():
    subject = subjects.real("smollm2", 40, 0)
    assert len(set(subject.facts)) == 40 < subject.known < subject.asked
    first = [subject.decoder.tokenizer.decode(f.ids) for f in subject.facts[:10]]
    assert len({text.split(" of ")[0] for text in first}) >= 3
    again = subjects.real("smollm2", 40, 0)
    assert again.facts == subject.facts != subjects.real("smollm2", 40, 1).facts


@pytest.mark.embedded
def test_facts_end_where_answers_begin():
    decoder = iglens.Decoder.from_pretrained("smollm2")
    facts = list(subjects._factual(decoder))
    assert len(facts) > 100
    texts = {decoder.tokenizer.decode(fact.ids): fact for fact in facts}
    paris = texts["The capital of France is"]
    assert decoder.token_text(paris.target) == " Paris"
    assert subjects._answer(decoder, paris) == paris.target


def test_figures_are_rounded_to_what_they_are():
    assert [small(v) for v in (0, 1.23e-9, 0.5, -0.004)] == [
        "0",
        "1.2e-09",
        "0.50",
        "-4.0e-03",
    ]
    assert mean_and_worst([1.0, -3.0]) == "2.00 (3.00)"
    assert percent(0.125) == "12%"


def test_a_block_is_replaced_where_it_stands_and_only_there():
    page = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb <!-- y:begin --><!-- y:end -->"
    new = filled(page, "x", "new")
    assert block(new, "x").strip() == "new"
    assert new.startswith("a\n")
    assert new.endswith("\nb <!-- y:begin --><!-- y:end -->")
    with pytest.raises(ValueError, match="no block 'z'"):
        filled(page, "z", "new")
