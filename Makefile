# make demo   set up and run the main job on the embedded digits
# make test   set up and run every quick test
# make help   the rest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/foveola/__init__.py)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test test-slow test-lowest check format docs docs-site wheel check-package sbom lock bench \
	peers peers-serving clean

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

test-lowest: .venv-lowest/.ready  ## the quick tests with the lowest versions that pyproject.toml allows (Python 3.11)
	.venv-lowest/bin/python -m pytest --numprocesses 2 --dist loadfile -W ignore::DeprecationWarning --ignore tests/docs

.venv-lowest/.ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --requirement constraints-lowest.txt
	.venv-lowest/bin/pip install --quiet --no-deps --editable .
	touch $@

check: setup  ## linter, format, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: setup  ## write the pages that are made from code: recipes, reference, licences, notebooks of the tutorials
	$(BIN)/python docs/recipes.py
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/licences.py
	$(BIN)/python docs/notebooks.py

docs-site: setup  ## build the documentation site into site/, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

wheel: setup  ## dist/: wheel and sdist of the last commit, the same bytes every time
	rm -rf dist build/source
	mkdir -p build/source
	git archive HEAD | tar --extract --directory build/source
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist build/source

check-package: .venv-tools/.ready  ## dist/: would the index take it, and show its page? Are the Dockerfiles sound?
	.venv-tools/bin/twine check --strict dist/*
	.venv-tools/bin/hadolint Dockerfile Dockerfile.train

sbom: wheel .venv-tools/.ready .venv-base/.ready .venv-full/.ready  ## build/sbom/: what installs contain, as CycloneDX
	mkdir -p build/sbom
	for install in base full; do \
	  .venv-tools/bin/cyclonedx-py environment --output-reproducible --validate --output-file \
	    build/sbom/foveola-$$install.cdx.json .venv-$$install || exit 1; \
	done
	$(BIN)/python -m pytest --quiet -m slow tests/docs/test_licences_page.py

.venv-base/.ready: pyproject.toml constraints.txt $(VENV)/.ready
	$(BIN)/python -m venv --without-pip .venv-base
	$(BIN)/pip --python .venv-base/bin/python install --quiet --constraint constraints.txt --find-links dist \
	  'foveola==$(VERSION)'
	touch $@

.venv-full/.ready: pyproject.toml constraints.txt $(VENV)/.ready
	$(BIN)/python -m venv --without-pip .venv-full
	$(BIN)/pip --python .venv-full/bin/python install --quiet --constraint constraints.txt --find-links dist \
	  'foveola[train,tune,tables,hub,tensorboard,mlflow,wandb]==$(VERSION)'
	touch $@

lock: .venv-tools/.ready  ## requirements/*.lock and constraints-lowest.txt, from pyproject.toml and constraints.txt
	.venv-tools/bin/python requirements/lock.py

.venv-tools/.ready: requirements/tools.txt
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/pip install --quiet --requirement requirements/tools.txt
	touch $@

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
	rm -rf $(VENV) .venv-base .venv-full .venv-lowest .venv-peers .venv-peers-serving .venv-tools build dist site \
	  .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
