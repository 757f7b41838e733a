# Two commands do all set-up on a fresh machine with Python >= 3.11, pip and make:
#   make demo   the main job on the embedded data set; ends with runs/demo/report.html
#   make test   the tests
# `make fuzz` feeds broken files to every reader for an hour (FUZZ_MINUTES=60) and prints what came of it.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
FUZZ_MINUTES ?= 60

.PHONY: install demo test check fuzz clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: install
	$(BIN)/hintseg demo --out runs/demo --overwrite

test: install
	$(BIN)/pytest -n auto --dist loadfile

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --doctest-modules src

fuzz: install
	$(BIN)/python tests/fuzzing.py --minutes $(FUZZ_MINUTES)

clean:
	rm -rf $(VENV) runs build dist
