# Everything runs in .venv, made here on first use. `make demo` and `make test` are all the set-up there is.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test check format bench bench-field bench-scale docs js fuzz soak dist clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile

.venv/made:
	$(PYTHON) -m venv .venv
	@touch $@

# A stamp for each set of packages: a second run finds it newer than pyproject.toml and installs nothing.
.venv/demo: .venv/made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,client]'
	@touch $@

.venv/dev: .venv/made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ .venv/demo

demo: .venv/demo ## the demo at http://127.0.0.1:8000
	$(BIN)/tickertape demo

test: .venv/dev ## all tests
	$(BIN)/python -m pytest -n 3 --dist loadfile

check: .venv/dev ## format, lint, types, layers, exports, language
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_exports.py tests/test_language.py

format: .venv/dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/dev ## the benchmarks, as ratios
	$(BIN)/python -m bench

bench-field: .venv/dev ## tickertape beside other servers, in some 25 minutes
	$(BIN)/python -m bench.field --write

bench-scale: .venv/dev ## 100,000 connections on 1 to 8 workers, in some 4 minutes
	$(BIN)/python -m bench.scale --write

SECONDS ?= 600
SEED ?= 1
BROKERS ?= sqlite redis-durable postgres nats

soak: .venv/dev ## everything is killed at random, ten minutes: SECONDS=600 SEED=1 BROKERS="sqlite nats"
	SOAK_SECONDS=$(SECONDS) SOAK_SEED=$(SEED) SOAK_BROKERS="$(BROKERS)" \
		$(BIN)/python -m pytest -q -s --show-capture=no --tb=short tests/soak

docs: .venv/dev ## the documentation, in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

js: ## the small form of tickertape.js
	npm --prefix js run --silent small

fuzz: .venv/dev ## the decoder under a coverage-guided fuzzer, one minute
	$(BIN)/python -m bench.fuzz_decoder -max_total_time=60

.venv/release: .venv/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'build>=1.3' 'twine>=6' 'uv>=0.9' 'cyclonedx-bom>=7' 'nox>=2025.5'
	@touch $@

dist: .venv/release ## the distributions in dist/, checked in fresh environments
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python release/dist.py

clean: ## remove everything that was generated
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis docs/_build dist
