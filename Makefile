# Everything runs from a fresh clone: the first target that needs it makes .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install demo demo-seg test lint types imports docs bench clean

help:
	@echo "make demo     train five methods on 40 labels and write the report"
	@echo "make demo-seg the same with masks: generated shapes, 32 of them labelled"
	@echo "make test     run the test suite"
	@echo "make install  make .venv with everything needed for development"
	@echo "make lint | types | imports | docs | bench | clean"

.venv/bin/python:
	$(PYTHON) -m venv .venv

# The stamps hold the time of the last installation; a changed pyproject or pin makes it due again.
.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e ".[demo]"
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e ".[demo,dev]"
	@touch .venv/.demo $@

install: .venv/.dev

demo: .venv/.demo
	$(BIN)/sfumato demo

demo-seg: .venv/.demo
	$(BIN)/sfumato demo --task segmentation

# Two processes, each with whole files: more would need more memory than most gain from.
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

docs: install
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: install
	@for file in benchmarks/*.py; do echo "== $$file"; OMP_NUM_THREADS=1 $(BIN)/python "$$file" || exit 1; done

clean:
	rm -rf .venv build dist docs/_build docs/_generated .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
