# make demo   the whole thing on a fresh machine: no data set, no weights, no GPU    (FAST=1: a tenth of the size)
# make test   the tests, in JOBS=2 processes                                         (ARGS="-k name" narrows them)
# make check  lint, format, types, the import contract
# make robustness  files damaged and processes killed, and a table of what came of it (JSON=FILE: as JSON too)
# make bench  benchmarks of kernels, a training step, the store and the teacher service on this machine
# make gpu    verification, tests and benchmarks on a GPU in ten minutes, with the machine's own torch, no network needed; results in docs/gpu
#             (DRY=1 rehearses all of it on a CPU; ARGS="--only check step" narrows it)

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
FAST ?=
DRY ?=
JOBS ?= 2
ARGS ?=

.PHONY: help demo test check robustness bench gpu
help:
	@sed -n 's/^# //p' Makefile | sed '/^$$/q'

# a folder with half an install in it is begun anew: the stamp is written last
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "teach-detr needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv || { echo "python3 -m venv failed: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/teach-detr demo $(if $(FAST),--fast)

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu" -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

robustness: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m faults -n $(JOBS) --dist loadfile $(if $(JSON),--tally $(JSON)) $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_imports.py

bench: $(INSTALLED)
	$(BIN)/python -m detr_kernels.bench
	$(BIN)/student-train bench
	$(BIN)/python -m box_store.measure
	$(BIN)/teacher-infer bench

# a GPU node brings its own torch and may have no network, so nothing is installed here and the sources run in place;
# parts, their order and their limits stand in student_train/bench/gpu.py
GPU_OUT ?= docs/gpu
gpu: export PYTHONPATH := $(CURDIR):$(CURDIR)/kernels:$(CURDIR)/pipelines:$(PYTHONPATH)
gpu:
	$(PYTHON) -m student_train.bench.gpu --out $(GPU_OUT)$(if $(DRY),/dry --dry) $(ARGS)
