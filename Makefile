# Everything a newcomer or CI needs; each target does its own set-up in .venv.
#
#   make run       the main job on the embedded database (needs Python 3.11+ with venv)
#   make test      all tests (also needs Node 20+)
#   make node      the Node.js adapter: builds it, lints it, runs its own tests
#   make lint      ruff: rules and formatting
#   make imports   who may import whom, as architecture has it
#   make types     mypy --strict on src/
#   make format    rewrites the files as `make lint` wants them
#   make faults    a fault at every passing of every named place (SCALE=1 times the work of `make test`)
#   make simulate  SEEDS=200 random schedules against the store, compared with a reference model
#   make fuzz      COUNT=20000 random programs compared with Node, from SEED=0 on; prints what they were made of
#   make fuzz-parser  TIME=600 seconds of bytes through the front end, IR and snapshots, guided by coverage (fetches atheris)
#   make mutants   bugs planted in the compiler and the run time; the random programs must notice each
#   make chaos     workers and PostgreSQL killed at random under WORKFLOWS=5000 mixed workflows (SEED=…)
#   make bench     measures this machine
#   make bench-peers  measures Rhythm beside other queues and engines (installs them into .bench; ONLY=dbos,… SCALE=0.1)
#   make bench-idle  how soon one and twenty idle workers begin, directly and through PgBouncer
#   make curves    measures what grows (an hour; ONLY=depth,… SCALE=0.1) and draws docs/figures/
#   make clean     removes .venv and what tools left behind; keeps data (.rhythm)

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
NODE_STAMP := node/node_modules/.installed
# On two cores: half of the time is spent waiting for processes and servers.
TEST_PROCESSES ?= 3

.PHONY: help run test node faults simulate fuzz fuzz-parser mutants chaos lint imports types format bench bench-peers bench-idle curves clean check-node

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

run: $(STAMP)
	@cd examples/orders && ../../$(BIN)/python run.py

test: check-node $(STAMP) node
	$(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist worksteal $(PYTEST_ARGS)

node: check-node $(NODE_STAMP)
	@cd node && npm run --silent build && npm run --silent lint && npm run --silent test

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

imports: $(STAMP)
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

faults: $(STAMP)
	RHYTHM_FAULT_SCALE=$(or $(SCALE),1) $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist worksteal -rP tests/worker/test_fail_points.py

simulate: $(STAMP)
	RHYTHM_SIMULATE_SEEDS=$(or $(SEEDS),200) $(BIN)/python -m pytest -q -n $(TEST_PROCESSES) --dist worksteal tests/store/test_simulation.py

fuzz: check-node $(STAMP)
	$(BIN)/python -m tests.language.fuzz --count $(or $(COUNT),20000) --seed $(or $(SEED),0) --processes 2

fuzz-parser: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=2.3'
	$(BIN)/python -m tests.language.fuzz.frontend --seconds $(or $(TIME),600)

mutants: check-node $(STAMP)
	$(BIN)/python -m tests.language.fuzz.mutants

chaos: $(STAMP)
	$(BIN)/python -m tests.chaos --workflows $(or $(WORKFLOWS),5000) $(if $(SEED),--seed $(SEED))

bench: $(STAMP)
	$(BIN)/python -m benchmarks.bench_language
	$(BIN)/python -m benchmarks

bench-peers: check-node $(STAMP) $(NODE_STAMP)
	@cd node && npm run --silent build
	$(BIN)/python -m benchmarks.peers $(if $(ONLY),--only $(ONLY)) $(if $(SCALE),--scale $(SCALE))

bench-idle: $(STAMP)
	$(BIN)/python -m benchmarks.idle

curves: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python -m benchmarks.curves $(if $(ONLY),--only $(ONLY)) $(if $(SCALE),--scale $(SCALE))

clean:
	rm -rf $(VENV) node/node_modules node/dist .bench build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The newest Python that will do, asked for by its versions first: plain python3 may be older.
$(STAMP): pyproject.toml
	@python=""; \
	for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3; do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "Rhythm needs Python 3.11 or newer. Install it with:" >&2; \
	    if command -v apt-get >/dev/null; then echo "    sudo apt-get install python3 python3-venv" >&2; \
	    elif command -v dnf >/dev/null; then echo "    sudo dnf install python3.12" >&2; \
	    elif command -v brew >/dev/null; then echo "    brew install python@3.12" >&2; \
	    else echo "    see https://www.python.org/downloads/" >&2; fi; \
	    echo "or name one: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	    version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	    echo "$$python has no venv module. Install it with:" >&2; \
	    if command -v apt-get >/dev/null; then echo "    sudo apt-get install python$$version-venv" >&2; \
	    else echo "    your system's package for venv and ensurepip of Python $$version" >&2; fi; \
	    exit 1; \
	fi; \
	if [ ! -x $(BIN)/python ] || ! $(BIN)/python -c 'import pip' >/dev/null 2>&1; then \
	    echo "Creating $(VENV) with $$("$$python" --version)"; "$$python" -m venv --clear $(VENV) || exit 1; \
	fi; \
	echo "Installing Rhythm into $(VENV) (once; about a minute)"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' || exit 1; \
	touch $(STAMP)

$(NODE_STAMP): node/package.json node/package-lock.json | check-node
	@echo "Installing the Node.js adapter's packages into node/node_modules (once)"; \
	cd node && npm ci --silent && touch node_modules/.installed

check-node:
	@major=$$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0); \
	if [ "$$major" -lt 20 ]; then \
	    echo "The tests compare the flow language with Node.js 20 or newer (found: $$(node --version 2>/dev/null || echo none)). Install it with:" >&2; \
	    if command -v brew >/dev/null; then echo "    brew install node" >&2; \
	    elif command -v apt-get >/dev/null; then echo "    curl -fsSL https://deb.nodesource.com/setup_20.x | sudo bash - && sudo apt-get install nodejs" >&2; \
	    else echo "    see https://nodejs.org/en/download" >&2; fi; \
	    exit 1; \
	fi; \
	if ! command -v npm >/dev/null; then \
	    echo "The Node.js adapter needs npm, which your Node.js came without. Install it with:" >&2; \
	    if command -v apt-get >/dev/null; then echo "    sudo apt-get install npm" >&2; \
	    else echo "    your system's package for npm" >&2; fi; \
	    exit 1; \
	fi
