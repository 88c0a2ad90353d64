# The command set of Ondol. Needs Python 3.11+ and make; everything else goes into .venv.
#   make PYTHON=/path/to/python3.12 …   uses that Python
#   make serve ARGS='--port 9000'       hands options on

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev models demo serve test lint format types imports unit model-tests \
	test-extras wheel docs pins lock bench peers bench-peers clean

export PYTHON
PY := .venv/bin/python
ONDOL := $(PY) -m ondol
ARGS ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## Create .venv and install Ondol with its locked packages
	@sh scripts/venv.sh base

setup-dev: ## The same with the development tools
	@sh scripts/venv.sh dev

models: setup ## Fetch the default models (once)
	@$(ONDOL) models pull

demo: setup ## Set up, ingest the sample documents, ask a question, show the cited answer
	@sh scripts/demo.sh

serve: models ## Set up, then run the server on 127.0.0.1:8400
	@exec $(ONDOL) serve $(ARGS)

test: setup-dev ## Everything CI runs: lint, types, imports, tests, real models, extras, wheel
	@$(PY) scripts/check.py

lint: setup-dev ## Formatting, lint rules, unused and undeclared dependencies
	@$(PY) scripts/check.py format lint deps

format: setup-dev ## Format the code and apply safe fixes
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

types: setup-dev ## Strict type check
	@$(PY) scripts/check.py types

imports: setup-dev ## Which room may import which
	@$(PY) scripts/check.py imports

unit: setup-dev ## Tests with fakes: unit, contract, API, docs
	@$(PY) scripts/check.py unit

model-tests: setup-dev ## Tests with real models (fetches them once)
	@$(PY) scripts/check.py models

test-extras: setup-dev ## Tests that need torch, transformers or a native llama.cpp (.venv-extras)
	@$(PY) scripts/check.py extras

wheel: setup-dev ## Build the wheel and try it in a clean environment
	@$(PY) scripts/check.py wheel

docs: setup-dev ## Regenerate docs/reference from the code
	@$(PY) scripts/write_reference.py

pins: setup-dev ## Accept what the code does now as what tests/pins holds it to
	@$(PY) scripts/write_pins.py

lock: setup-dev ## Resolve the lock files anew (UPGRADE=1 renews every pin)
	@sh scripts/lock.sh

bench: ## List the benchmarks; each says at its top how it is run
	@awk 'FNR == 1 { sub(/^"""/, ""); sub(/"""$$/, ""); printf "  %-28s %s\n", FILENAME, $$0 }' benchmarks/*.py

peers: ## Build .peers: what Ondol is compared with, in an environment of its own
	@sh scripts/peers.sh

bench-peers: setup peers ## Compare with sentence-transformers, ONNX Runtime and infinity (ARGS=--quick tries it)
	@$(ONDOL) models pull all-minilm-l6-v2 multilingual-e5-small ms-marco-minilm-l12-v2
	@$(PY) benchmarks/encoders.py $(ARGS)
	@$(PY) benchmarks/serve_peers.py $(ARGS)

clean: ## Remove .venv, .venv-extras, .peers and everything built
	@rm -rf .venv .venv-extras .peers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
