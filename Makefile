# `make demo`: fine-tunes the model that ships here on real handwriting.  `make test`: all tests.  `make bench`: all benchmarks.  Each sets itself up.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench

python := .venv/bin/python

help:
	@grep -hE '^# `make' Makefile | sed 's/^# //; s/  /\n/g'

setup:
	@bash scripts/setup.sh

demo: setup
	@$(python) demo/make_handwriting.py --out demo/data/handwriting
	$(python) -m foveate train recipes/demo.yaml --overwrite

# One thread for each of two workers: two threads each on two cores make a step ten times slower.
test:
	@bash scripts/setup.sh --tests
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(python) -m pytest -n 2 $(PYTEST_ARGS)

lint: setup
	@$(python) -m ruff check src tests demo
	.venv/bin/lint-imports --no-logo

# Its own processes run one after the other, on one thread each.  BENCH_ARGS="--quick" tries whether everything runs; "--only NAME".
bench: setup
	@OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(python) -m benchmarks $(BENCH_ARGS)
