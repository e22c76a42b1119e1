# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
PORT ?= 8501

.PHONY: demo test check soak audit app clean

# Install, compress and ask the embedded pocket model, open the explorer on 127.0.0.1.
demo: $(VENV)/.installed
	$(BIN)/kick sweep pocket --preset demo
	$(BIN)/kick app --port $(PORT)

# Everything that CI runs: style, types, import rules, then all tests.
test: check $(VENV)/.tested
	$(BIN)/python -m pytest

# Style, types and import rules; well under 20 seconds.
check: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The long versions of tests/reliability: a thousand aimed kills, a million records, every bit flipped, a queue of
# a hundred jobs, sweeps killed and shared out, 20,000 inputs to every parser. About an hour on two cores.
soak: $(VENV)/.tested
	KICK_FUZZ=20000 $(BIN)/python -m pytest tests/reliability
	$(BIN)/python -m pytest tests/reliability -m soak

# Known vulnerabilities of the pinned versions. Without the index it says so and is no failure; SECURITY.md answers the
# one that has no fixed version.
audit: $(VENV)/.tested
	$(BIN)/python .ci/audit.py

# The explorer over whatever the cache holds.
app: $(VENV)/.installed
	$(BIN)/kick app --port $(PORT)

# torch goes first: anything that asks for it later would bring gigabytes of CUDA with it.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
