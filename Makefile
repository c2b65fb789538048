# make demo      sets up, builds a small pack from the bundled notes, prints the next steps
# make test      sets up and runs the quick tests, which cover every part of the program in minutes
# make test-all  runs all tests, as CI does: a missing prerequisite is an error
# make lint      runs ruff, mypy and shellcheck
# make fresh     runs `make demo` and `make test` in bare Debian 12 systems (as root; FRESH=NAMES)
# make image     builds nsynth.sif, the container image, with build.py (IMAGE_ARGS=--help)
# make release   builds the source distribution and the wheel in dist/ and checks them
# make pythons   tests the package on each installed Python from 3.10 to 3.13

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
DEMO ?= demo
IMAGE_ARGS ?=
FRESH ?=

BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt $(PIP_ARGS)
SCRIPTS := .ci/run tests/pythons tests/oracle/setup tests/cluster/setup tests/cluster/image tests/fresh/run patches/apply \
  requirements/python2.7-on-debian-12 $(wildcard entrypoints/* slurm/*)

# CI has two cores. loadfile runs a file's tests in one process, where they share fixtures.
PARALLEL := -n 2 --dist loadfile
QUICK := not slow and not cluster and not oracle

.PHONY: setup demo test test-all lint fresh pythons image release clean
.DELETE_ON_ERROR:

setup: .venv/.installed

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is required; choose one with: make PYTHON=python3.12 …"; exit 1; }
	@echo "Setting up .venv (the first time takes minutes: PyTorch is large) …"
	@$(PYTHON) -m venv .venv || { echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

.venv/.installed: .venv/.made pyproject.toml requirements/constraints.txt
	@$(INSTALL) -e .
	@touch $@

.venv/.installed-test: .venv/.installed
	@$(INSTALL) -e '.[test]'
	@touch $@

.venv/.installed-image: .venv/.installed
	@$(INSTALL) -e '.[image]'
	@touch $@

.venv/.installed-release: .venv/.installed
	@$(INSTALL) -e '.[release]'
	@touch $@

.venv/.installed-lint: .venv/.installed
	@$(INSTALL) -e '.[lint,test]'
	@touch $@

demo: setup
	@$(BIN)/nsynth-super demo $(DEMO)

test: .venv/.installed-test
	@$(BIN)/python -m pytest $(PARALLEL) -m "$(QUICK)" $(PYTEST_ARGS)

test-all: .venv/.installed-test
	@$(BIN)/python -m pytest $(PARALLEL) --no-skips -m "not cluster" $(PYTEST_ARGS)
	@$(BIN)/python -m pytest --no-skips -m cluster $(PYTEST_ARGS)

lint: .venv/.installed-lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); else echo "shellcheck: skipped, not installed"; fi

fresh: setup
	@tests/fresh/run $(FRESH)

image: .venv/.installed-image
	@$(BIN)/python build.py $(IMAGE_ARGS)

# Not `python -m build`: here, that would run build.py.
release: .venv/.installed-release
	@rm -rf dist build *.egg-info
	@$(BIN)/pyproject-build --outdir dist
	@$(BIN)/twine check --strict dist/*
	@$(BIN)/check-wheel-contents dist/*.whl

pythons:
	@PYTHON=$(PYTHON) tests/pythons

clean:
	rm -rf .venv .pythons .oracle .cluster .fresh $(DEMO) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
