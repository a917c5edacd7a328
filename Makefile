# Everything happens in .venv, which is made on first use with the first Python
# that is new enough. What is installed there is renewed when pyproject.toml changes.

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# A process for each processor, and two more since most tests wait for something at times; one at a
# time with ARGS="-n 0".
PYTEST := -m pytest -n $(shell echo $$(($$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 2))) \
  --maxprocesses 8 --dist worksteal

# Each process of a run collects all tests. In a new checkout each would also compile all of them, at
# the same time as the others: they find them compiled if somebody has collected them before.
compiled = [ -e $(1)/.compiled ] || { \
  ls -d tests/*/ examples/ | xargs -n 3 -P 8 $(1)/bin/python -m pytest --collect-only -qq >/dev/null 2>&1; \
  touch $(1)/.compiled; \
}

# What tests store lies in memory where there is room: they kill processes and not machines, so
# nothing of it need reach a disk. `TMPDIR=/tmp make test` takes one, as `make long` does.
ROOM := $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 4000000 {print $$6}')
SCRATCH := $(or $(TMPDIR),$(shell test -w "$(ROOM)" && echo $(ROOM)))
test: export TMPDIR := $(SCRATCH)
test-3.%: export TMPDIR := $(SCRATCH)
# Whatever a host has said of that: the processes that tests start read what is compiled already.
export PYTHONDONTWRITEBYTECODE :=
INSTALLED := .venv/.installed
INSTALLED_BENCH := .venv/.installed-bench
INSTALLED_WEB := .venv/.installed-web
INSTALLED_CLUSTER := .venv/.installed-cluster
INSTALLED_DEV := .venv/.installed-dev

# The Pythons that pyproject.toml claims, oldest first.
CLAIMED := 3.11 3.12 3.13
ENDS := $(firstword $(CLAIMED)) $(lastword $(CLAIMED))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-cluster check test test-ends lint ruff mypy pyright bench bench-peers long clean

help:
	@echo 'make demo    run examples/documents; pass arguments as ARGS="..."; --serve serves it then'
	@echo 'make demo-cluster  run examples/cluster: several processes, a PostgreSQL, and a kill -9'
	@echo 'make check   all checks: formatting, lint, types, tests'
	@echo 'make test    the tests'
	@echo 'make test-ends  the tests on the oldest and the newest Python that is claimed, after make test'
	@echo 'make test-3.13  the tests on one of them, in .venv-3.13'
	@echo 'make lint    all checks but the tests'
	@echo 'make long    the tests, with the slow ones, and on every Python that is claimed'
	@echo 'make bench   the benchmarks, with a report in bench-report; ARGS="..."'
	@echo 'make bench-peers  other frameworks beside Perdure (downloads them); the same ARGS'
	@echo 'make clean   remove .venv and whatever else these leave behind'
	@echo
	@echo 'PYTHON=python3.13 chooses the interpreter when .venv is made.'

demo: $(if $(findstring --serve,$(ARGS)),$(INSTALLED_WEB),$(INSTALLED))
	@$(BIN)/python -m examples.documents $(ARGS)

demo-cluster: $(INSTALLED_CLUSTER)
	@$(BIN)/python -m examples.cluster $(ARGS)

check: lint
	@$(MAKE) --no-print-directory test

test: $(INSTALLED_DEV)
	@$(call compiled,.venv)
	$(BIN)/python $(PYTEST) $(ARGS)

# Whichever of them .venv is made of has run the tests with `make test`, also those that are the same
# on every Python.
test-ends: $(INSTALLED)
	@for version in $(ENDS); do \
	  $(BIN)/python -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] == '$$version')" \
	    || continue; \
	  $(MAKE) --no-print-directory test-$$version CHOSEN="-m 'not once'" || exit 1; \
	done

# On the PATH, or one that pyenv has; one that this machine lacks is passed over, in words.
test-3.%:
	@for found in python3.$* $$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.$*.*/bin/python 2>/dev/null); do \
	  $$found -c 'import sys; sys.exit(sys.version_info[1] != $*)' 2>/dev/null && break; \
	  found=; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'There is no Python 3.$* on this machine: nothing was tested on it.'; \
	  exit 0; \
	fi; \
	if [ ! -e .venv-3.$*/.installed ] || [ pyproject.toml -nt .venv-3.$*/.installed ]; then \
	  echo "Making .venv-3.$* with $$($$found --version)" && $$found -m venv --clear .venv-3.$* \
	    && .venv-3.$*/bin/python -m pip --disable-pip-version-check --no-input install -qq \
	      --editable '.[bench,test]' \
	    && touch .venv-3.$*/.installed || exit 1; \
	fi; \
	echo "Testing on $$(.venv-3.$*/bin/python --version)"; \
	$(call compiled,.venv-3.$*); \
	.venv-3.$*/bin/python $(PYTEST) $(CHOSEN) $(ARGS)

# The two that check types take longest, and one processor each; what ruff finds is known at once.
lint: $(INSTALLED_DEV)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target ruff pyright mypy

ruff: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

mypy pyright: $(INSTALLED_DEV)
	$(BIN)/$@

# One at a time: some of them measure. A long test may take its time, so the limit on a hung one
# is wider.
long: $(INSTALLED_DEV)
	$(BIN)/python -m pytest --long -o faulthandler_timeout=1800 $(ARGS)
	@for version in $(CLAIMED); do \
	  $(BIN)/python -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] == '$$version')" \
	    || continue; \
	  $(MAKE) --no-print-directory test-$$version || exit 1; \
	done

# A later --report in ARGS takes the place of this one.
bench: $(INSTALLED_BENCH)
	@$(BIN)/perdure bench --report bench-report $(ARGS)

bench-peers: $(INSTALLED)
	@$(PIP) install -qq 'uvloop >= 0.20'
	@$(BIN)/python -m benchmarks.peers $(ARGS)

clean:
	rm -rf .venv .venv-3.* .peers bench-report build dist perdure.egg-info htmlcov .coverage .coverage.*
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/pyvenv.cfg:
	@found=; \
	for candidate in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    found=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'Perdure needs Python 3.11 or newer, and none was found on the PATH.' >&2; \
	  echo 'Install one, or name it: make PYTHON=/path/to/python3.11 ...' >&2; \
	  exit 1; \
	fi; \
	if ! $$found -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$found cannot make virtual environments: its venv or ensurepip module is missing." >&2; \
	  echo 'On Debian and Ubuntu install it with: apt install python3-venv' >&2; \
	  exit 1; \
	fi; \
	echo "Making .venv with $$($$found --version)"; \
	$$found -m venv --clear .venv

# An interrupted first run can leave .venv without pip.
$(INSTALLED): .venv/pyvenv.cfg pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	@echo 'Installing perdure in .venv'
	@$(PIP) install -qq --upgrade pip
	@$(PIP) install -qq --editable .
	@touch $@

$(INSTALLED_BENCH): $(INSTALLED)
	@echo 'Installing what the benchmarks need in .venv'
	@$(PIP) install -qq --editable '.[bench,uvloop]'
	@touch $@

$(INSTALLED_WEB): $(INSTALLED)
	@echo 'Installing what serves HTTP in .venv'
	@$(PIP) install -qq --editable '.[web]'
	@touch $@

$(INSTALLED_CLUSTER): $(INSTALLED)
	@echo 'Installing what a hub on PostgreSQL needs in .venv, and a PostgreSQL'
	@$(PIP) install -qq --editable '.[postgres,server]'
	@touch $@

$(INSTALLED_DEV): $(INSTALLED)
	@echo 'Installing the tools of development in .venv'
	@$(PIP) install -qq --editable '.[dev]'
	@command -v node >/dev/null || $(PIP) install -qq 'pyright[nodejs]'
	@touch $@
