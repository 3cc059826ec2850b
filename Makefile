# make demo   the whole thing on a fresh machine: no data set, no weights, no GPU    (FAST=1: a tenth of the size)
# make test   the tests, in JOBS=2 processes                                         (ARGS="-k name" narrows them)
# make check  lint, format, types, the import contract
# make bench  benchmarks of kernels, a training step, the store and the teacher service on this machine
# make gpu    verification, tests and benchmarks on a GPU with the machine's own torch, no network needed; results in docs/gpu

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
FAST ?=
JOBS ?= 2
ARGS ?=

.PHONY: help demo test check bench gpu
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
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu" -n $(JOBS) --dist loadfile $(ARGS)

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
# a part that fails does not stop the others: every screen is kept as GPU_OUT/PART.txt, and the end names what failed
GPU_OUT ?= docs/gpu
gpu: export PYTHONPATH := $(CURDIR):$(CURDIR)/kernels:$(CURDIR)/pipelines:$(PYTHONPATH)
gpu:
	@mkdir -p $(GPU_OUT) && rm -f $(GPU_OUT)/failed.txt
	@part() { \
	    name=$$1; shift; echo; echo "== $$name: $$*"; \
	    { "$$@" 2>&1 || echo "$$name" >> $(GPU_OUT)/failed.txt; } | tee $(GPU_OUT)/$$name.txt; \
	}; \
	part check $(PYTHON) -m detr_kernels.check --out $(GPU_OUT)/check.json; \
	part tests $(PYTHON) -m pytest -m gpu -q -p no:cacheprovider tests/detr_kernels tests/student_train $(ARGS); \
	part kernels $(PYTHON) -m detr_kernels.bench --out $(GPU_OUT)/kernels.json $(BENCH_ARGS); \
	part step $(PYTHON) -m student_train.cli bench --preset dino-r50-4scale --out $(GPU_OUT)/step.json; \
	part shares $(PYTHON) -m student_train.cli bench --preset dino-r50-4scale --profile --out $(GPU_OUT)/shares.json; \
	part loader $(PYTHON) -m student_train.cli bench --preset dino-r50-4scale --data --out $(GPU_OUT)/loader.json; \
	part presets $(PYTHON) -m student_train.cli bench --presets all --steps 5 --out $(GPU_OUT)/presets.json; \
	echo; if [ -s $(GPU_OUT)/failed.txt ]; then \
	    echo "failed: $$(tr '\n' ' ' < $(GPU_OUT)/failed.txt)(what it said is in $(GPU_OUT))"; exit 1; \
	fi; echo "everything passed; results in $(GPU_OUT)"
