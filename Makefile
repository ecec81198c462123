# Everything a contributor needs; `make help` lists it. Wants only make and Python 3.11 or newer:
# the first target that needs tools makes .venv from the hash-checked lock in requirements/.

.DEFAULT_GOAL := help
.PHONY: help setup demo test chaos check bench fmt lock clean

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
SOURCES := models scheduler triggerer migrations
PYTEST_ARGS ?=
ARGS ?=
BENCH_ARGS ?=
UV_VERSION := 0.13.9

# Compiled modules make every daemon start faster; the environment must not turn them off.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | \
		while IFS="$$(printf '\t')" read -r name text; do printf '  make %-7s %s\n' "$$name" "$$text"; done

setup: $(READY) ## Make .venv: the locked tools and an editable install of roost
	@:

demo: $(READY) ## Run the example DAG on real data, from file to report
	@$(PY) -m examples.demo

test: $(READY) ## Run the whole suite (PYTEST_ARGS="-k word" narrows it)
	@$(PY) -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

chaos: $(READY) ## Kill and stop daemons and the database for 10 minutes, then judge (ARGS="--seed 2")
	@$(PY) -m tests.chaos $(ARGS)

check: $(READY) ## Lint, formatting, types and layer contracts
	@failed=0; \
	echo "ruff check"; $(BIN)/ruff check --quiet . || failed=1; \
	echo "ruff format"; $(BIN)/ruff format --quiet --check . || failed=1; \
	echo "mypy --strict"; $(BIN)/mypy --no-error-summary || failed=1; \
	echo "import-linter"; report=$$($(BIN)/lint-imports 2>&1) || { echo "$$report"; failed=1; }; \
	exit $$failed

bench: $(READY) ## Measure, beside Airflow's figures (BENCH_ARGS="--db sqlite chain" narrows it)
	@$(PY) -m benchmarks $(BENCH_ARGS)

fmt: $(READY) ## Format and mend what ruff can mend
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

# One resolution for every platform and Python >= 3.11; the dev lock may not stray from the runtime lock.
LOCK := $(BIN)/uv pip compile --no-config --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --extra postgres --extra http --extra redis --extra amqp --extra callback
UNLOCAL := env -u PIP_FIND_LINKS -u UV_FIND_LINKS

lock: $(READY) ## Refresh the locked versions and hashes in requirements/
	@$(PY) -m pip install -qq uv==$(UV_VERSION)
	@$(UNLOCAL) $(LOCK) pyproject.toml -o requirements/runtime.txt
	@$(UNLOCAL) $(LOCK) --constraint requirements/runtime.txt --group dev pyproject.toml -o requirements/dev.txt
	@git diff --stat -- requirements

clean: ## Remove .venv, caches and build output
	@rm -rf $(VENV) dist build demo-home .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .coverage .coverage.*
	@find $(SOURCES) tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

# python3.11 first: the lock is tested there.
$(PY):
	@python=; for name in python3.11 python3 python; do \
		if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "roost needs Python 3.11 or newer; install it so that python3.11 or python3 is on the PATH" >&2; exit 1; \
	fi; \
	echo "[1/3] making $(VENV) with $$("$$python" -V)"; \
	"$$python" -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "$$python cannot make virtual environments; install its venv module (Debian: python3-venv)" >&2; exit 1; }

$(LOCKED): requirements/dev.txt | $(PY)
	@echo "[2/3] installing the locked packages ($$(grep -c '==' requirements/dev.txt), hashes checked)"
	@$(PY) -m pip install -qq --require-hashes --only-binary=:all: -r requirements/dev.txt
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	@echo "[3/3] installing roost, editable, byte-compiled"
	@$(PY) -m pip install -qq --no-deps --no-build-isolation -e .
	@$(PY) -m compileall -q $(SOURCES)
	@touch $@
