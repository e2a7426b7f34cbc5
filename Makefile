# One word each. `make venv` comes first; PYTHON chooses what it is made of.
PYTHON ?= python3
COUNT ?= 1000
DEPTH ?= 1
SECONDS ?= 600
BIN := .venv/bin

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 10

venv:  ## .venv with all that the others need
	$(PYTHON) -m venv .venv && $(BIN)/pip install -q -e '.[test]'

lint:  ## ruff, and the layers by import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types:  ## mypy --strict
	$(BIN)/mypy

fast:  ## tests/unit: rules, protocol, texts, house rules; within a minute, no server is started
	$(BIN)/python -m pytest tests/unit

test:  ## all tests, on real servers
	$(BIN)/python -m pytest

docs:  ## the docs site, in build/site: warnings are errors, links within it are followed
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs build/site

links:  ## whether the pages of others that the docs link to are there; needs the net
	$(BIN)/python -m sphinx -W --keep-going -q -b linkcheck docs build/links

bench:  ## the benchmark: make bench CONFIG=distjob.yaml, of a Redis, etcd or ZooKeeper
	$(BIN)/python -m distjob.testing.bench --config $(or $(CONFIG),$(error say which server: make bench CONFIG=distjob.yaml))

worlds:  ## simulated worlds, COUNT of each profile
	$(BIN)/python -m distjob.testing.sim.world --count $(COUNT)

explore:  ## all schedules of short scripts with DEPTH deviations (of the main four, if more than 1)
	$(BIN)/python -m distjob.testing.explore --depth $(DEPTH) $(if $(filter-out 1,$(DEPTH)),--main)

history:  ## real processes, killed and stopped, for SECONDS on STORE (its section as JSON), checked
	$(BIN)/python -m distjob.testing.history '$(or $(STORE),$(error say which store, as its section in JSON))' --seconds $(SECONDS)

matrix:  ## oldest and newest client libraries, on each Python from 3.11 that is here
	$(PYTHON) .ci/matrix.py

package:  ## sdist and wheel, in dist; TAG=v1.2.3 must be their version
	test -z "$(TAG)" || test "$(TAG)" = "v$$($(BIN)/python -m hatchling version)"
	$(BIN)/python -m hatchling build -d dist

.PHONY: help venv lint types fast test docs links bench worlds explore history matrix package
