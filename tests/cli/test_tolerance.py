"""`--tolerance`: what it may be, and what it changes."""

import json

import pytest
from families import some_ids

from iglens.cli.main import run

TEXT = " ".join(str(n) for n in some_ids(30, 1))


@pytest.mark.parametrize("bad", ["-0.1", "0.001", "nan"])
def test_a_tolerance_that_is_none_is_refused_in_one_line(tiny_folder, bad, capsys):
    asked = ["explain", TEXT, "-m", str(tiny_folder), "--tolerance", bad, "--quiet"]
    assert run(asked) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("iglens: `tolerance` is ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("given", "applied"), [([], 2.0**-24), (["0"], 0.0)])
def test_the_result_says_what_was_applied(tiny_folder, given, applied, capsys):
    options = [word for value in given for word in ("--tolerance", value)]
    asked = ["explain", "the city", "-m", str(tiny_folder), "--json", "--quiet"]
    assert run([*asked, "--no-diagnostics", *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["readout"]["pruned_below"] == applied
