PYTHON ?= python3
BIN = .venv/bin
PIP_INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
DATA = demo/faces
RUN = demo/run
FACES = 12000

.PHONY: demo test check gpu-check clean

demo: .venv/for-demo
	test -e $(DATA)/dataset.json || $(BIN)/progan data create faces --out $(DATA) --count $(FACES) --resolution 32
	$(BIN)/progan train --preset demo --data $(DATA) --out $(RUN)
	$(BIN)/progan generate $(RUN) --seeds 0-63 --grid 8x8 --out demo/images
	$(BIN)/progan export $(RUN) --to web --data $(DATA) --out demo/page.html
	@echo "64 new faces: demo/images/grid.png; the data: $(RUN)/reals.png; how they grew: $(RUN)/fakes-*.png"
	@echo "A page to play with them, in any browser: demo/page.html"

test: .venv/for-tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

check: .venv/for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

gpu-check: .venv/for-tests
	$(BIN)/python benchmarks/gpu_check.py

clean:
	rm -rf .venv demo

.venv/for-demo: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "progan needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) '.[faces]'
	touch $@

.venv/for-tests: .venv/for-demo
	$(PIP_INSTALL) '.[dev]'
	touch $@
