# `make train` and `make test` each work alone on a fresh clone.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
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

train: setup  ## the paper's line on the embedded world: prepare, tune, evaluate, report (about 6 min)
	$(BIN)/python prepare.py paths=miniature miniature=0 recipe=all check_counts=false
	$(MAKE) --no-print-directory --jobs=2 scores
	$(BIN)/python report.py html=true 'runs=[$(TUNED),$(CAPTIONS)]'

# What `make train` runs two at a time, of one thread each, with half of the steps and a fifth of the questions:
# instruction tuning and as many steps on captions alone, what both answer, and what the language model answers without
# the picture, with another one, and told the scene.
TUNED := miniature-s42
CAPTIONS := miniature+captions-s42
SHORT := steps=600
HELD_OUT := recipe=held_out missing=true limit=100
NAMED = | sed -u 's/^/$@: /'
.PHONY: tune tune-captions answers controls scores
scores: answers controls

tune:
	$(BIN)/python train.py experiment=miniature name=$(TUNED) $(SHORT) resume=auto $(NAMED)

tune-captions:
	$(BIN)/python train.py 'experiment=[miniature,control/captions]' name=$(CAPTIONS) $(SHORT) resume=auto $(NAMED)

answers: tune tune-captions
	$(BIN)/python evaluate.py -m $(HELD_OUT) run=$(TUNED),$(CAPTIONS) batch_size=64 $(NAMED)
	$(BIN)/python evaluate.py $(HELD_OUT) run=$(TUNED) constant=true $(NAMED)

controls: tune
	$(BIN)/python evaluate.py -m $(HELD_OUT) run=$(TUNED) batch_size=64 images=deranged,none,told $(NAMED)

answers controls: export OMP_NUM_THREADS := 1

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
