# Everything runs in an environment of the project's own, .venv; the system's Python is only asked to make it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint check clean

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: .venv/ready  ## compile a shipped model for three machines, run it, compare it bit for bit
	$(BIN)/python tools/demo.py

test: .venv/ready  ## all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: .venv/ready  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test  ## what continuous integration runs

clean:
	rm -rf .venv out build *.egg-info
