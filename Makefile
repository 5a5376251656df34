# `make demo` and `make test` need Python 3.11 or later, and make; they set up the rest in .venv, once.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# The first interpreter that runs, is new enough, and can make a virtual environment; lock.txt was made with 3.11.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	$$p -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

export MPLBACKEND ?= Agg
export OMP_NUM_THREADS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && echo 4 || echo $$n)
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help setup demo test check lint types direction wheel format docs clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

setup: $(STAMP) ## make .venv with the versions of lock.txt

# The constraint file is not optional: without it pip may fetch gigabytes of CUDA for torch.
$(STAMP): pyproject.toml lock.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later with venv was found. Install one, or say make PYTHON=/path/to/python."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-compile -c lock.txt -e ".[dev,train,notebooks]"
	@touch $@

demo: $(STAMP) ## guided generation with the shipped model
	$(BIN)/guided-dlm demo

test: $(STAMP) ## all tests, the notebooks among them
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

# In this order: the cheap checks first, README's test command last.
check: lint types direction wheel test ## everything that .ci/run checks

lint: $(STAMP) ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy --strict on both packages
	$(BIN)/mypy

direction: $(STAMP) ## which module may import which
	$(BIN)/lint-imports

wheel: $(STAMP) ## the wheel and a plugin, in a fresh environment
	$(BIN)/python tests/check_wheel.py

format: $(STAMP) ## rewrite the code as `make lint` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## the documentation site, in site/
	$(BIN)/python -m pip install --disable-pip-version-check -q -c lock.txt -e ".[docs]"
	$(BIN)/mkdocs build --strict

clean: ## remove caches and builds, keep .venv
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
