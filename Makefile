# Every target makes the virtual environment by itself when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help install demo test lint docs clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed  ## make the virtual environment, with pinned versions

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt reasoning-gym || echo 'reasoning-gym needs a C compiler: its tests will be skipped.'
	touch $@

demo: install  ## train twice on the laptop policy and compare (11 to 14 minutes on two cores)
	$(BIN)/python -m experiments.laptop.demo

test: install  ## all tests: no network, no GPU
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: install  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check atmanrl tests experiments
	$(BIN)/mypy

docs: install  ## the documentation in docs/_build/html; a broken link fails
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build/html

clean:  ## remove the virtual environment and everything that was built
	rm -rf $(VENV) docs/_build build dist *.egg-info
