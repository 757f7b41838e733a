# Two commands do all set-up on a fresh machine with Python >= 3.11, pip and make:
#   make demo   the main job on the embedded data set; ends with runs/demo/report.html
#   make test   the tests
# The others: check (ruff, mypy, import rules, spelling, doctests), docs (the site, into site/), notebook (run it),
# package (wheel and sdist, into dist/), lowest (quick tests with the oldest libraries allowed), changelog (what is new),
# fuzz (broken files to every reader for an hour: FUZZ_MINUTES=60).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
FUZZ_MINUTES ?= 60

.PHONY: install demo test check lint types imports spelling docs notebook package lowest changelog fuzz clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: install
	$(BIN)/hintseg demo --out runs/demo --overwrite

test: install
	$(BIN)/pytest -n auto --dist loadfile --durations=20 --durations-min=1

check: lint types imports spelling
	$(BIN)/python docs/make.py --check
	$(BIN)/python -m benchmarks render --check
	$(BIN)/pytest --doctest-modules src

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

spelling: install
	$(BIN)/codespell src docs benchmarks changes README.md CONTRIBUTING.md PROVENANCE.md CHANGELOG.md

docs: install
	$(BIN)/python docs/make.py --check
	$(BIN)/zensical build --strict

notebook: install
	$(BIN)/python docs/run_notebook.py

package: install
	$(BIN)/hatchling build -t sdist -t wheel

# Direct dependencies at their lower bounds, in an environment of its own.
LOWEST := .venv-lowest
LOWEST_TESTS := tests/test_config.py tests/test_formats.py tests/test_geometry.py tests/test_store.py \
	tests/test_refine_par.py tests/test_refine_dense_crf.py tests/test_vwe.py tests/test_pipeline.py

lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/$(notdir $(BIN))/python -m pip install --quiet --disable-pip-version-check uv
	$(LOWEST)/$(notdir $(BIN))/uv pip install --python $(LOWEST) --resolution lowest-direct -e . 'pytest>=8.2' 'hypothesis>=6.100'
	$(LOWEST)/$(notdir $(BIN))/python -m pytest -p no:cacheprovider $(LOWEST_TESTS)

changelog: install
	$(BIN)/towncrier build --draft --version next

fuzz: install
	$(BIN)/python tests/fuzz.py --minutes $(FUZZ_MINUTES)

clean:
	rm -rf $(VENV) $(LOWEST) runs build dist site .cache
