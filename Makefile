# Works with GNU make 3.81 or newer (macOS ships that) and any POSIX shell.

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that is new enough. Another one: make run PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
ARGS ?=
QUICK ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The lock is the whole closure, so pip has nothing to resolve; --require-hashes refuses what is not in it.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --no-deps
FROM_LOCK := $(PIP_INSTALL) --require-hashes --only-binary :all:
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" --extra local --extra images --excludes requirements.exclude

.DEFAULT_GOAL := help
.PHONY: help run test bench eval check format install install-dev lock schemas clean

help: ## Show this list (the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS="…" is handed on: make run ARGS="--port 8080", make test ARGS="-k sse -x"'

run: $(VENV)/installed ## Serve on 127.0.0.1:18888 with the embedded model
	@exec $(BIN)/antiphon serve $(ARGS)

test: $(VENV)/installed-dev ## Run the whole test suite
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(ARGS)

bench: $(VENV)/installed ## Measure the speed beside a minimal relay (QUICK=1: two minutes; docs/speed.md)
	@exec $(BIN)/python -m bench $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

eval: $(VENV)/installed-dev ## Compare combinations with their best member (QUICK=1: a minute; docs/evaluation.md)
	@exec $(BIN)/python -m evaluation $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

check: $(VENV)/installed-dev ## Check format, lint, types and floors; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev ## Format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/installed ## Make .venv with what `make run` needs

install-dev: $(VENV)/installed-dev ## Make .venv with the tools for checks and tests as well

lock: $(VENV)/installed-dev ## Write the lock files anew (ARGS=--upgrade: with the newest versions)
	$(COMPILE) $(ARGS) setup.cfg requirements.in --output-file requirements.lock
	$(COMPILE) $(ARGS) setup.cfg requirements.in requirements-dev.in --extra dev --constraints requirements.lock \
		--output-file requirements-dev.lock

schemas: $(VENV)/installed-dev ## Write docs/*.json and the tables of features in docs/providers.md anew, from the code
	$(BIN)/antiphon schema events > docs/events.schema.json
	$(BIN)/antiphon schema asyncapi > docs/asyncapi.json
	$(BIN)/antiphon schema features --into docs/providers.md

clean: ## Remove .venv and everything that was generated
	rm -rf $(VENV) build dist antiphon.egg-info .coverage htmlcov
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find bench evaluation server tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# Each stamp is newer than what it was made from, so a second run installs nothing.

$(VENV)/created:
	@test -n "$(PYTHON)" || { \
		echo "Antiphon needs Python 3.11 or newer, and none was found." >&2; \
		echo "Install one, or name it: make run PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is older than Python 3.11." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: its venv module is packaged apart." >&2; \
		echo "On Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@echo "Making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(VENV)/locked: requirements.lock $(VENV)/created
	@echo "Installing from requirements.lock (the embedded model is 130 MB; once)"
	@$(FROM_LOCK) -r requirements.lock
	@touch $@

$(VENV)/installed: setup.cfg pyproject.toml server/__init__.py $(VENV)/locked
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	@echo "Installing from requirements-dev.lock"
	@$(FROM_LOCK) -r requirements-dev.lock
	@touch $@
