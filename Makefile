# Pacsteward: `make` alone lists what there is to do.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p) 2>/dev/null)))
BIN := .venv/bin
STAMPS := .make
DATA ?= pacsteward-data
ROOM ?=
ARGS ?=
SEED ?= 7
SOURCES := $(shell find src/pacsteward -name '*.py')

.DEFAULT_GOAL := help
.PHONY: help setup serve test sim check bench prove soak repl house new docs hospital clean

help: ## This list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMPS)/bytecode $(STAMPS)/assets ## Environment, front-end assets and viewer

serve: setup ## Run the archive; DATA=folder, ARGS="--http-port 8081 …"
	@exec $(BIN)/pacsteward serve --data $(DATA) $(ARGS)

test: setup $(STAMPS)/peers ## All tests; ROOM=query only those of a room
	@tests/run $(ROOM)

sim: $(STAMPS)/package ## A hospital's day in a faulty world, told line by line; SEED=7
	@$(BIN)/python -m tests.simulation --seed $(SEED) --story

check: $(STAMPS)/package ## Format, lint, types, floors, house; under a minute
	@$(BIN)/ruff format --check --quiet src tests bench prove tools conftest.py
	@$(BIN)/ruff check --quiet src tests bench prove tools conftest.py
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest -q tests/house

bench: setup $(STAMPS)/peers ## Speed beside Orthanc; QUICK=1 within three minutes, ONLY=store,query some of it
	@$(BIN)/python -m bench $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(ARGS)

prove: setup $(STAMPS)/peers ## The promises of reliability, counted; QUICK=1, ONLY=R1,R2
	@$(BIN)/python -m prove $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

soak: setup ## Load for MINUTES=30: memory and open files must stay flat
	@MINUTES=$(or $(MINUTES),30) $(BIN)/python -m prove --only R15

repl: $(STAMPS)/package ## Python with the house of DATA open, read-only
	@$(BIN)/pacsteward repl --data $(DATA)

house: $(STAMPS)/package ## Rooms, services, routes, pages, jobs, permissions, with file and line
	@$(BIN)/pacsteward house

new: $(STAMPS)/package ## Scaffold: KIND=feature|decision|change NAME=…
	@$(BIN)/python tools/new.py $(KIND) $(NAME)

docs: $(STAMPS)/package ## Write docs/reference anew from the code
	@$(BIN)/python tools/reference.py

hospital: setup ## Send a small hospital's morning to a running archive
	@$(BIN)/pacsteward hospital send --studies 20 --seed 7

clean: ## Forget the set-up, keep the data
	rm -rf .venv $(STAMPS) src/pacsteward/web/static/vendor src/pacsteward/features/viewer/dist

$(STAMPS)/venv: requirements.lock
	@mkdir -p $(STAMPS)
	@tools/make_environment "$(PYTHON)"
	@touch $@

$(STAMPS)/package: $(STAMPS)/venv pyproject.toml
	@echo "==> installing pacsteward into .venv"
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# As pip does for a wheel. A service whose account may not write here would compile at every start.
$(STAMPS)/bytecode: $(STAMPS)/package $(SOURCES)
	@$(BIN)/python -m compileall -q src/pacsteward
	@touch $@

$(STAMPS)/assets: $(STAMPS)/package src/pacsteward/web/assets.toml
	@echo "==> fetching the console's assets and the viewer (pinned by hash)"
	@tools/fetch_assets
	@touch $@

$(STAMPS)/peers: $(STAMPS)/venv
	@tests/support/install_peers
	@touch $@
