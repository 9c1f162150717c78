# make demo   from nothing to lesion boxes in a real CT, minutes on two cores
# make test   the test suite; `make test-all` adds the long tests
# make check  lint, format, types, and which room imports which
# make docs   the pages as a site, in site/
# make setup MMCV=full   uses compiled mmcv instead of the fallback operators
SHELL := /bin/bash
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.10 python3 2>/dev/null))
VENV ?= .venv
MMCV ?= lite
BIN := $(VENV)/bin
DONE := $(VENV)/.setup-$(MMCV)
TOOLED := $(VENV)/.tools

# Tests and demo start many processes; each would compile torch and mmdet again where the shell forbids to keep byte code.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all check format docs benchmark setup clean

setup: $(DONE) $(TOOLED)

$(DONE): requirements.txt setup.cfg setup.py pyproject.toml tools/setup_env.sh
	bash tools/setup_env.sh "$(PYTHON)" "$(VENV)" "$(MMCV)"
	@touch $@

# What tests and checks need; the demo does without.
$(TOOLED): requirements-dev.txt requirements-docs.txt | $(DONE)
	$(BIN)/python -m pip --disable-pip-version-check --quiet install --no-compile -r requirements-dev.txt -r requirements-docs.txt
	$(BIN)/python -m pip --disable-pip-version-check check
	@touch $@

demo: $(DONE)
	$(BIN)/python tools/demo.py --out demo_output $(if $(CT),--ct "$(CT)")

# One process for each core, so one thread in each; the tests of a file stay together and share their fixtures.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST)

test-all: setup
	$(PYTEST) -m "slow or not slow" --hypothesis-profile search

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/mkdocs build --strict

benchmark: $(DONE)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info mmpluld/.mim demo_output site
