# Nothing but python3 and make is needed.  `make verify` runs the main job, `make test` all checks.
PYTHON ?= python3
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
JOBS ?= 2
EXTRAS ?= nvidia,tutorials

.PHONY: help verify test lint bench claims notebooks site wheelhouse shelf clean

help:            ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

$(BIN)/python:
	$(PYTHON) -m venv .venv

# A strict editable install lists every file: a new or removed file asks for a new install (a few seconds).
FILES := $(shell find reference gpu theory cli tutorials -type f ! -path '*/__pycache__/*' | sort)
.venv/files: $(BIN)/python
	@printf '%s\n' $(FILES) > .venv/files.new; cmp -s .venv/files.new .venv/files || cp .venv/files.new .venv/files
.PHONY: .venv/files

.venv/installed: $(BIN)/python pyproject.toml constraints.txt .venv/files
	@if [ ! -e $@ ] || [ .venv/files -nt $@ ] || [ pyproject.toml -nt $@ ] || [ constraints.txt -nt $@ ]; then \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[nvidia]' && touch $@; fi

.venv/tested: .venv/installed
	@if [ ! -e $@ ] || [ .venv/installed -nt $@ ]; then \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]' && touch $@; fi

verify: .venv/installed  ## the main job: every kernel against its oracle, on real weights
	$(BIN)/loadsparse verify

test: lint       ## lint, types, tests, notebooks
	$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal tests

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/tested  ## every speed claim, as ratios measured in one run
	$(BIN)/python -m tests.benchmarks

claims: .venv/tested  ## regenerate the claims ledger from the tests
	$(BIN)/python tests/claims.py

notebooks: .venv/tested  ## execute the tutorials and write them with outputs
	$(BIN)/python tests/notebooks.py

site: .venv/tested  ## the course, the notes and the reference as pages in site/; no network is needed
	$(BIN)/python docs/pages.py

wheelhouse: .venv/installed  ## wheels for an offline install (EXTRAS=nvidia,train ...), proved and measured
	$(BIN)/python tests/wheelhouse.py --extras '$(EXTRAS)'

shelf: .venv/tested  ## compile the packaged kernels anew, after a change of gpu/kernels/ or of CUDA C++ in a chapter
	$(BIN)/python tests/shelf.py
	$(BIN)/python tests/course_ptx.py

clean:
	rm -rf .venv build dist site wheelhouse *.egg-info
