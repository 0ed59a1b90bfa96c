PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow lint types install clean

demo: install  ## generate pictures from the embedded digits
	$(BIN)/patchmosaic generate --count 12 --out runs/demo --overwrite

test: install  ## the quick tests
	$(BIN)/python -m pytest -q

test-slow: install  ## the tests on real data
	$(BIN)/python -m pytest -q -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt hatch_build.py $(wildcard src/patchmosaic/engines/*.cpp src/patchmosaic/engines/*.h)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
