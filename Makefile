# Only Python >= 3.11 with venv and pip, and make, are assumed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
ORACLES := .venv-oracles
PROMPT ?= The capital of France is
WORKERS ?= 2

export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo explain test slow oracles conformance playground reproduction scaling notebooks check format docs bench smoke clean help

help:            ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

demo: $(VENV)/installed   ## install, fetch the embedded model, explain a sentence
	$(BIN)/iglens explain "The capital of France is"

explain: $(VENV)/installed   ## explain PROMPT="…" with the embedded model
	$(BIN)/iglens explain "$(PROMPT)"

test: $(VENV)/developing   ## the test suite, on WORKERS=2 processes
	$(BIN)/iglens models fetch smollm2
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

slow: $(VENV)/developing   ## the tests marked slow, which CI runs too
	$(BIN)/iglens models fetch smollm2
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow

oracles: $(ORACLES)/developing   ## Captum, TransformerLens and Triton's interpreter, in .venv-oracles
	HF_HUB_OFFLINE=1 IGLENS_NEEDS_ORACLES=1 $(ORACLES)/bin/python -m pytest tests/oracles
	TRITON_INTERPRET=1 $(ORACLES)/bin/python -m pytest tests/readout/test_fused.py

conformance: $(VENV)/developing   ## prove every class of Transformers, write the table
	HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error $(BIN)/python -m conformance.run

playground: $(VENV)/developing   ## score every method on models with known answers
	HF_HUB_OFFLINE=1 $(BIN)/python -m playground

reproduction: $(VENV)/developing   ## measure the paper's argument again, both embedded models
	$(BIN)/iglens models fetch smollm2
	HF_HUB_OFFLINE=1 $(BIN)/python -m reproduction

scaling: $(VENV)/developing   ## what a corpus costs and withstands; writes docs/scaling.md
	$(BIN)/iglens models fetch smollm2
	HF_HUB_OFFLINE=1 $(BIN)/python -m scaling

notebooks: $(VENV)/developing   ## run the tutorial notebooks again, and store what comes out
	$(BIN)/iglens models fetch smollm2
	HF_HUB_OFFLINE=1 $(BIN)/python examples/execute.py

check: $(VENV)/developing   ## format, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(VENV)/developing   ## put the code in the house's format
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/developing   ## build the documentation in docs/_build/html
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

bench: $(VENV)/developing   ## time it against the floor and the neighbours; SHORT=1 for a minute's worth
	$(BIN)/iglens models fetch smollm2
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks $(if $(SHORT),--short)

smoke: $(VENV)/developing   ## the built wheel, alone in a new environment
	rm -rf dist .venv-smoke
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv .venv-smoke
	.venv-smoke/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/iglens-*.whl
	.venv-smoke/bin/iglens --version
	.venv-smoke/bin/iglens models fetch smollm2
	.venv-smoke/bin/python tests/smoke.py
	rm -rf .venv-smoke

clean:           ## remove what the other targets made
	rm -rf $(VENV) $(ORACLES) .venv-neighbours .venv-smoke dist docs/_build

$(BIN)/python $(ORACLES)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "iglens needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/developing: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e '.[dev,docs]'
	touch $@ $(VENV)/installed

$(ORACLES)/developing: $(ORACLES)/bin/python pyproject.toml constraints.txt
	$(ORACLES)/bin/python -m pip --disable-pip-version-check install --quiet \
	  -c constraints.txt -e '.[dev]' captum transformer-lens triton
	touch $@
