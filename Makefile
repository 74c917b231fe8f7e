# Each target sets up what it needs: a virtual environment, the locked dependencies, the project.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.synced

# Every step is a process of its own, and without bytecode files each would compile its
# libraries anew, for as long as it takes to import them. Container images often set this.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test up check bench lock

setup: $(STAMP)

$(BIN)/uv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(STAMP): requirements.lock pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

demo: setup
	$(BIN)/visionloop run

# One thread for each worker's PyTorch: the networks of the tests are too small to gain from two,
# and threads of workers that share the cores wait for each other.
test: export OMP_NUM_THREADS ?= 1
test: setup
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadgroup

up: setup
	$(BIN)/visionloop up

check: setup
	cp requirements.lock .venv/requirements.lock
	$(BIN)/uv pip compile --quiet $(LOCK_FLAGS) --output-file .venv/requirements.lock pyproject.toml
	cmp requirements.lock .venv/requirements.lock || { echo "error: requirements.lock does not follow pyproject.toml; run 'make lock'" >&2; exit 1; }
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks

LOCK_FLAGS := --group dev --all-extras --universal --python-version 3.11 --generate-hashes --no-annotate --no-header

# The old lock is the starting point: only what pyproject.toml asks for moves (UPGRADE=1 moves all).
lock: $(BIN)/uv
	$(BIN)/uv pip compile --quiet $(LOCK_FLAGS) $(if $(UPGRADE),--upgrade) --output-file requirements.lock pyproject.toml
