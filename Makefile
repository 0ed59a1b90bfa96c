PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DIGITS := src/patchmosaic/nets/digits

.PHONY: demo digits-network test test-slow lint types install clean

demo: install  ## pictures from the embedded digits, and theory beside a trained network
	$(BIN)/patchmosaic generate --count 12 --out runs/demo --overwrite
	$(BIN)/patchmosaic compare --out runs/demo-compare --overwrite

digits-network: install  ## train the bundled network anew (20 minutes on a core), halve its file, and calibrate the machines on it
	OMP_NUM_THREADS=1 $(BIN)/patchmosaic train --width 64 --steps 5000 --lr 1e-3 --decay 0.9991 --ema 0.999 --out runs/digits-network
	cp runs/digits-network/network/* $(DIGITS)/
	$(BIN)/python -c "from safetensors.torch import load_file, save_file; path = '$(DIGITS)/diffusion_pytorch_model.safetensors'; \
		save_file({name: weight.half() for name, weight in load_file(path).items()}, path, {'format': 'pt'})"
	$(BIN)/patchmosaic calibrate --network $(DIGITS) --count 20 --save-with-network --out runs/digits-scales

test: install  ## the quick tests, a process on each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -n auto --dist worksteal

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
