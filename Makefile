# make demo   set up and run the main job on the embedded digits
# make test   set up and run every quick test
# make help   the rest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-slow check format docs docs-site bench peers peers-serving clean

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

setup: $(VENV)/.ready  ## make .venv with pinned dependencies

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Foveola needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## train on the embedded digits and measure on held-out ones
	$(BIN)/foveola train digits

test: setup  ## every quick test, and the share of lines that they reach
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --cov --cov-report term

test-slow: setup  ## the tests that take minutes, on real data
	$(BIN)/python -m pytest -m slow

check: setup  ## linter, format, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: setup  ## write docs/recipes.md and docs/reference from the code, docs/notebooks from the tutorials
	$(BIN)/python docs/recipes.py
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/notebooks.py

docs-site: setup  ## build the documentation site into site/, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

bench: setup  ## seconds an epoch, images a second, memory, start-up
	$(BIN)/python benchmarks/recipes.py

peers: setup .venv-peers/.ready  ## Keras in an environment of its own, for benchmarks/tutorials.py

.venv-peers/.ready: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --requirement benchmarks/peers/requirements.txt
	touch $@

peers-serving: setup .venv-peers-serving/.ready  ## LitServe and FastAPI in an environment of their own, for benchmarks/load.py

.venv-peers-serving/.ready: benchmarks/peers/serving-requirements.txt
	$(PYTHON) -m venv .venv-peers-serving
	.venv-peers-serving/bin/pip install --quiet --requirement benchmarks/peers/serving-requirements.txt
	touch $@

clean:  ## remove what was made here, data and runs excepted
	rm -rf $(VENV) .venv-peers .venv-peers-serving build site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
