# Everything runs in .venv, made with plain venv and pip and reused while it is newer than pyproject.toml.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
PEERS  := $(VENV)/.peers

# Threads that wait should sleep: spinning ones slow everything down twentyfold where the cores are shared.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help install test lint types unit demo notebooks docs bench format clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1 - /p' Makefile

install: $(READY)  ## make .venv and install bayes_clip with its test tools

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bayes_clip needs Python 3.11 or later; try: make PYTHON=python3.12"; exit 1; }
	@echo "Installing into $(VENV) (PyTorch is large: the first time takes some minutes) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable ".[test]"
	@touch $(READY)

test: lint types unit  ## lint, type check and tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

demo: $(READY)  ## compare the engines on real handwritten digits, 4 labels a class
	$(BIN)/bayes-clip compare digits digits_rotated --shots 4 --out runs/demo

notebooks: $(READY)  ## pair and execute the notebooks; the executed copies are written to runs/notebooks/
	$(BIN)/python -m analysis.notebooks

docs: $(READY)  ## render the documentation to runs/docs/, and fail on any warning
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --config-file analysis/docs/mkdocs.yml

bench: $(PEERS)  ## time it beside its peers and this machine's limits (under ten minutes on two quiet cores)
	$(BIN)/python -m analysis.benchmarks

$(PEERS): $(READY)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable ".[bench]"
	@touch $(PEERS)

format: $(READY)  ## put the code in its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment, build outputs and caches (not runs/)
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
