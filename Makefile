# Two commands do all set-up on a fresh machine with Python >= 3.11, pip and make:
#   make demo   the main job on the embedded data set; ends with runs/demo/report.html
#   make test   the tests
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: install demo test check clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: install
	$(BIN)/hintseg demo --out runs/demo --overwrite

test: install
	$(BIN)/pytest

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest --doctest-modules src

clean:
	rm -rf $(VENV) runs build dist
