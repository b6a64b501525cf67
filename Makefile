# make demo        install, train on drawn faces, show what was found (minutes on a laptop)
# make test        install and run the tests          make test-slow   those that train for minutes
# make notebook    open the notebooks in JupyterLab   make lint        ruff, and notebooks without outputs
# make bench       measure speed against named peers  make clean       remove .venv and caches, keep your work
# make leaderboard TEST=test.csv CLASSES=classes.csv [SNAPSHOTS="a.h5 b.onnx"]    compare detectors on the images of TEST:
#                  about 0.3 s an image and 20 s more for each, on two cores; without SNAPSHOTS, those of the project
# The first of python3.11 to python3.13 is taken; another: make test PYTHON=python3.12

PYTHON ?= $(or $(shell for v in 3.11 3.12 3.13; do python$$v -c "" 2>/dev/null && echo python$$v && break; done),python3.11)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-slow notebook lint bench leaderboard lock clean

install: $(INSTALLED)

$(INSTALLED): requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install it, or name yours: make $(MAKECMDGOALS) PYTHON=python3"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: install
	$(BIN)/retinamask demo

test: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/test_export.py
	$(BIN)/python -m pytest -q -n 2 tests/test_export.py

test-slow: install
	$(BIN)/python -m pytest -q -m slow

notebook: install
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify notebooks/*.ipynb

bench: install
	@for name in xml_to_table audit input_pipeline training training_step coco_validation; do \
		$(BIN)/python -m benchmarks.$$name || exit 1; done

SNAPSHOTS ?= snapshots/mask_detector.onnx $(wildcard snapshots/interim/*.h5)

leaderboard: install
	$(BIN)/retinamask compare $(SNAPSHOTS) --annotations $(TEST) --classes $(CLASSES) --force

lock:
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header pyproject.toml \
		--output-file requirements.txt
	sed -i '1i # Every package with its exact version, for Python 3.11 to 3.13. Written from pyproject.toml by `make lock`.' requirements.txt

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache
	find retinamask tests benchmarks -name __pycache__ -type d -exec rm -rf {} +
