# Short targets for daily work; `.ci/run` is what continuous integration runs. PYTHON names the interpreter of an
# environment with the extras 'minilm' and 'dev' (see CONTRIBUTING.md).
PYTHON ?= .venv/bin/python

.PHONY: check lint types test slow pages lock package

check: lint types  ## before each commit: under three minutes on two cores
	$(PYTHON) -m pytest -n 2 -m "not slow and not thorough"

lint:
	$(PYTHON) -m ruff check cerank tests assets
	$(PYTHON) -m ruff format --check cerank tests assets
	PATH="$(dir $(PYTHON)):$$PATH" PYTHONPATH=. lint-imports

types:
	$(PYTHON) -m mypy

test:  ## everything that is not slow
	$(PYTHON) -m pytest -n 2

slow:  ## kills, power cuts, every key of every screen
	$(PYTHON) -m pytest -n 2 -m slow

pages:  ## write the generated parts of the guides anew
	$(PYTHON) assets/architecture.py
	$(PYTHON) assets/recipe_reference.py
	$(PYTHON) assets/error_codes.py

lock:  ## newest versions that pyproject.toml allows; needs uv
	uv pip compile pyproject.toml --extra dev --extra minilm --universal --python-version 3.11 \
		--no-emit-index-url --no-annotate --upgrade -o .ci/constraints.txt

package:  ## build sdist and wheel, and try both in a folder that is not the repository
	.ci/package
