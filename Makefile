# `make train` and `make test` each work alone on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1
export HF_DATASETS_OFFLINE := 1

.PHONY: help setup train tables test test-system check format
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(INSTALLED)  ## create .venv and install everything a developer needs

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[video,captions,audit,demo,dev]'
	touch $@

train: setup  ## the whole line on the embedded world: prepare, train, evaluate, report (about 5 min)
	$(BIN)/python prepare.py paths=miniature miniature=0 recipe=all check_counts=false
	$(BIN)/python train.py experiment=miniature/scratch resume=auto
	$(BIN)/python evaluate.py run=miniature-scratch-s42 recipe=[vqav2,vsr]
	$(BIN)/python evaluate.py run=miniature-scratch-s42 recipe=vqav2 images=shuffled
	$(BIN)/python report.py

tables: setup  ## Tables 1, 2 and Figure 4 in miniature, two model families, three seeds: long; goes on when called again
	$(BIN)/python experiments/miniature_tables.py

test: setup  ## everything that needs no system package: CPU, no network
	$(BIN)/python -m pytest -m 'not system'

test-system: setup  ## long fault tests with real processes and signals
	$(BIN)/python -m pytest -m system

check: setup  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
