# A fresh machine with Python >= 3.11, pip and make needs nothing else.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# two processes of one thread each, a file of tests to one of them
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile
EXTRAS := test browser notebooks docs bench

.PHONY: run test test-all test-browser lint notebooks docs faults programs bench hard family clean

run: .venv/user ## fit a VAE and say what log P(X) of held-out data is
	$(BIN)/python -m pyrovae.svi $(ARGS)

test: .venv/test lint ## lint, types, tests and doctests
	$(PYTEST) $(ARGS)

test-all: .venv/test lint ## the same with what is slow, half an hour
	$(PYTEST) -m 'not browser' $(ARGS)

test-browser: .venv/test .venv/browser ## the page of a run in Chromium, which has to be there
	$(BIN)/python -m pytest -m browser tests/test_browser.py $(ARGS)

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

notebooks: .venv/notebooks ## run all notebooks anew, outputs and all
	$(BIN)/python notebooks/run.py notebooks/*.ipynb

docs: .venv/docs ## the site: docs/_build/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -q docs docs/_build/html

faults: .venv/test ## files and processes that go wrong, all of them; ARGS='--fuzz 10' fuzzes
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m faults $(ARGS)

programs: .venv/test ## the table docs/programs.md, of the programs in tests/programs
	PYTHONPATH=tests $(BIN)/python -m programs

bench: .venv/bench ## our times beside the peers': a table and bench.json
	$(BIN)/python tests/benchmarks/speed.py $(ARGS)

.venv/user: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "pyrovae needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e . -c constraints.txt
	touch $@

# what .venv/X stands for: the extra X of pyproject.toml is installed
$(EXTRAS:%=.venv/%): .venv/%: .venv/user
	$(BIN)/python -m pip install -q -e '.[$*]' -c constraints.txt
	touch $@

hard: .venv/test ## verdicts on models with known log p(x): docs/hard.md
	$(BIN)/python tests/benchmarks/hard.py $(ARGS)

family: .venv/test ## nats of each model, prior and guide on digits: docs/family.md
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/family.py $(ARGS)

clean:
	rm -rf .venv build dist docs/_build docs/notebooks docs/*.svg
