# Everything that the course needs, in one place. `make` lists it. For people without make: README.md.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
FIGURES := tests/benchmarks/results
BUILDS = $(wildcard solutions/*/build.ipynb)
# nbgrader calls programs of the environment by name
export PATH := $(CURDIR)/$(BIN):$(PATH)

# tests run in several processes: each with several threads, they would wait for each other
test slow notebooks: export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow lint lab build check notebooks bench clean

help:  ## list these targets
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(STAMP)  ## make the environment .venv (once; again when the requirements change)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 setup"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## release week 3, grade a sample class, film an agent (under 5 minutes)
	mbrl-course demo

test: setup lint check notebooks  ## the tests that the continuous integration runs
	pytest -n 2 --dist loadgroup -m "not benchmark and not slow"

slow: setup  ## the tests that take minutes: editions, learning, the judge's corpus
	pytest -n 2 --dist loadgroup -m "slow and not benchmark"

notebooks: setup  ## run the solution notebooks with nbval (numbers may differ, errors may not)
	test -z "$(BUILDS)" || pytest -q -n 2 --dist loadscope --nbval-lax $(BUILDS)

lint: setup  ## ruff and mypy
	ruff check .
	ruff format --check .
	mypy course/mbrl_course autograder/mbrl_autograder
	mypy --allow-untyped-defs tests

lab: setup  ## open JupyterLab in weeks/
	mbrl-course lab

build: setup  ## regenerate solutions/ and weeks/ from course/notebooks/
	mbrl-course build

check: setup  ## fail if solutions/ or weeks/ are stale
	mbrl-course check

bench: setup  ## measure speed (minutes; not part of the tests)
	python tests/benchmarks/bench_planning.py --out $(FIGURES)/planning.json
	python tests/benchmarks/bench_grading.py --out $(FIGURES)/grading.json
	python tests/benchmarks/bench_training.py --compile --out $(FIGURES)/training.json
	python tests/benchmarks/bench_training.py --compile --threads 1 --out $(FIGURES)/training-1-thread.json

clean:  ## remove caches, build/, dist/ and demo/; what you graded and ran stays
	rm -rf demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
