# make demo   sets up, makes a small pack from the bundled notes, says what to do next
# make test   sets up and runs the tests
# make lint   ruff, mypy, shellcheck
# make image  builds nsynth.sif, the container image, with Apptainer: build.py (IMAGE_ARGS=--help)

PYTHON ?= python3
PIP_ARGS ?=
PYTEST_ARGS ?=
DEMO ?= demo
IMAGE_ARGS ?=

BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt $(PIP_ARGS)
SCRIPTS := .ci/run tests/oracle/setup tests/cluster/setup tests/cluster/image patches/apply \
  requirements/python2.7-on-debian-12 $(wildcard entrypoints/* slurm/*)

.PHONY: setup demo test lint image clean
.DELETE_ON_ERROR:

setup: .venv/.installed

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name yours: make PYTHON=python3.12 …"; exit 1; }
	@echo "Setting up in .venv (PyTorch is large: minutes, the first time) …"
	@$(PYTHON) -m venv .venv || { echo "Debian and Ubuntu: apt install python3-venv"; exit 1; }
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

.venv/.installed-lint: .venv/.installed
	@$(INSTALL) -e '.[lint,test]'
	@touch $@

demo: setup
	@rm -rf $(DEMO) && mkdir -p $(DEMO) && cp -r examples/settings.json examples/audio_input $(DEMO)/
	@$(BIN)/nsynth-super check -w $(DEMO) --checkpoint demo
	@$(BIN)/nsynth-super run -w $(DEMO) --checkpoint demo
	@$(BIN)/nsynth-super -q export -w $(DEMO) $(DEMO)/wav
	@$(BIN)/nsynth-super -q preview -w $(DEMO) --export $(DEMO)/pad.html
	@echo
	@echo "Made: $(DEMO)/pads_output/ — one pad of 75 sounds, the device's settings.json, a manifest"
	@echo "      $(DEMO)/wav/ — the same sounds as WAV; the model is small, Magenta's is not"
	@echo "Play: $(DEMO)/pad.html in a browser, or $(BIN)/nsynth-super preview -w $(DEMO)"
	@echo "Next: your own sounds, with Magenta's model:"
	@echo "      $(BIN)/pip install -c requirements/constraints.txt -e '.[tensorflow]'"
	@echo "      $(BIN)/nsynth-super checkpoint fetch"
	@echo "      $(BIN)/nsynth-super new my-pack"
	@if [ -t 1 ] && [ -n "$$DISPLAY$$WAYLAND_DISPLAY" -o "$$(uname)" = Darwin ]; then \
	  $(BIN)/python -m webbrowser "file://$$(cd $(DEMO) && pwd)/pad.html" >/dev/null 2>&1 || true; fi

test: .venv/.installed-test
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/.installed-lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@if command -v shellcheck >/dev/null; then shellcheck $(SCRIPTS); else echo "shellcheck is not here: skipped"; fi

image: .venv/.installed-image
	@$(BIN)/python build.py $(IMAGE_ARGS)

clean:
	rm -rf .venv .oracle .cluster $(DEMO) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
