# Everything is made in .venv, with the versions of requirements.txt.

# `make PYTHON=/path/to/python` chooses another one.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	$$p -c "import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))" \
	2>/dev/null && echo $$p && break; done)
NO_PYTHON = expected Python 3.11, 3.12 or 3.13 with its venv module, got none on the \
	PATH; install one or run make PYTHON=/path/to/python

BIN := .venv/bin
# Written last: an interrupted installation leaves none and is begun again.
STAMP := .venv/.complete

DEMO_DIR := runs/demo

.PHONY: setup demo test test-slow check lock clean

setup: $(STAMP)

demo: $(STAMP)
	test -e $(DEMO_DIR)/checkpoints || $(BIN)/palette-jax import --task=colorize \
	  palette_jax/weights/generalist_64.safetensors --out=$(DEMO_DIR) >/dev/null
	$(BIN)/python main.py --config=$(DEMO_DIR)/config.py:tiny --workdir=$(DEMO_DIR) \
	  --config.train.num_steps=20 --config.train.checkpoint_every=10 \
	  --config.train.preview_every=20 --config.train.log_every=5 \
	  --config.optim.learning_rate=3e-5 --config.optim.warmup_steps=5 \
	  --config.optim.decay_steps=10 --config.sample.sampler=unipc_2 \
	  --config.sample.num_steps=8
	$(BIN)/python main.py --mode=evaluate --workdir=$(DEMO_DIR) --config.sample.num_samples=4

# As many processes as cores, of 3 GB each; the tests of a file stay together, because
# they share slow fixtures.
test: $(STAMP)
	$(BIN)/python -m pytest -m "not slow" --numprocesses=auto --maxprocesses=8 \
	  --dist=loadfile

# Crashes, several processes, schedulers, browsers, benchmarks: one after the other, as
# they use all cores themselves, and so three times as long.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check

# Updates requirements.txt from setup.py; keeps the versions that still fit.
lock: $(STAMP)
	$(BIN)/uv pip compile setup.py --extra=train --extra=dev --extra=demo --universal \
	  --python-version=3.11 --annotation-style=line --quiet \
	  --custom-compile-command="make lock" --output-file=requirements.txt

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache runs/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs in a quarter of the time. Where it cannot, as behind a package mirror
# that only pip is told of, pip does the same.
$(STAMP): requirements.txt setup.py
	$(if $(PYTHON),,$(error $(NO_PYTHON)))
	rm -rf .venv && $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint=requirements.txt uv
	$(BIN)/uv pip install --quiet --python=$(BIN)/python -r requirements.txt \
	  || $(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e . && touch $@
