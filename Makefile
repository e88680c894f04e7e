# The two commands: `make demo` and `make test`. Both do all set-up first; a second run finds it done.
#
#   make demo [PORT=8000] [OAUTH_PORT=PORT+1] [MONGO_PORT=PORT+2] [FRESH=1]
#   make soak [DURATION=600] [SEED=1] [ROUND=n]

# Given on the command line or in the environment; scripts/demo has the defaults.
export PORT OAUTH_PORT MONGO_PORT FRESH

# `check` before each commit, `test` before each push.
.PHONY: help setup demo test check soak docs lint fmt lock clean bench compare load

help:
	@sed -n 's/^## //p' $(firstword $(MAKEFILE_LIST))

## make demo    set up and start everything on this machine: http://localhost:8000
demo:
	@scripts/demo

## make test    set up, check and run every test
test:
	@scripts/test

## make check   lint, types and unit tests, in under a minute
check: setup
	@scripts/lint
	@.venv/bin/python -m pytest -q --numprocesses auto tests/unit tests/test_layout.py

## make soak    a long run under random faults; pictures and figures in .cache/soak: DURATION=3600 SEED=7 (ROUND=2) (WORKERS=2)
soak: setup
	@.venv/bin/python scripts/leaves_nothing.py .venv/bin/python tests/faults/soak.py \
	  --duration $(or $(DURATION),600) --seed $(or $(SEED),1) $(if $(ROUND),--round $(ROUND)) \
	  $(if $(WORKERS),--workers $(WORKERS))

## make setup   only the set-up, for development
setup:
	@scripts/setup dev

## make bench   measure beside the Node.js stack, half an hour; QUICK=1: three minutes, ARGS="--scenario one-room"
bench: setup
	@npm --prefix bench/peers/node ci --silent --no-progress
	@.venv/bin/python bench/run.py $(if $(QUICK),--quick) $(ARGS)

## make compare BASE=PATH   this checkout against another one, paired rounds, 18 minutes; ARGS="--rounds 3"
compare: setup
	@.venv/bin/python bench/compare.py --base $(BASE) $(ARGS)

## make load    import a million documents with interruptions and count them, about a quarter of an hour; DOCUMENTS=20000: fewer
load: setup
	@.venv/bin/python bench/importing.py $(if $(DOCUMENTS),--documents $(DOCUMENTS))

## make docs    build the documentation site in .cache/site; SERVE=8003: serve it on that port while you write
docs: setup
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs $(if $(SERVE),serve --dev-addr 127.0.0.1:$(SERVE),build --strict --clean)

## make lint    ruff, mypy and the front end's type check
lint: setup
	@scripts/lint

## make fmt     format the code and mend what can be mended by a machine
fmt: setup
	@.venv/bin/ruff check --fix-only --quiet .
	@.venv/bin/ruff format .

## make lock    write the lock files anew from pyproject.toml (needs uv)
lock:
	@scripts/lock

## make clean   remove what set-up and tests made; the demo's data in .livedocs/ stays
clean:
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis test-results
	rm -rf frontend/node_modules frontend/dist tests/clients/node/node_modules bench/peers/node/node_modules tests/clients/oidc-provider/node_modules
