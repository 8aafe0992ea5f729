# Two commands do everything on a machine that has Python 3.11 or later, make and a compiler:
#   make demo    a small model learns to reason, in six minutes on two cores
#   make test    lint, types, architecture, tests
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test check format setup oracle rivals test-vllm test-slow test-browser clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet torch==2.13.0 --constraint constraints.txt
	$(BIN)/pip install --quiet --editable . --group dev --constraint constraints.txt
	touch $@

demo: setup
	$(BIN)/open-rs demo

check: setup
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/pyright
	$(BIN)/pytest tests/architecture

format: setup
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

test: check
	$(BIN)/pytest -m "not slow and not vllm and not oracle and not browser" --ignore tests/architecture

test-slow: setup
	$(BIN)/pytest -m slow

.envs/trl/.complete: scripts/make_trl_env.sh
	sh scripts/make_trl_env.sh .envs/trl

rivals: .envs/trl/.complete test-vllm-env

oracle: .envs/trl/.complete
	PYTHONPATH=src:tests .envs/trl/bin/python -m pytest -m oracle tests/oracle

test-vllm-env:
	sh scripts/make_vllm_env.sh .envs/vllm

test-vllm: test-vllm-env
	.envs/vllm/bin/python -m pytest -m vllm tests/rollout tests/evaluate

test-browser: setup
	$(BIN)/pytest -m browser tests/report

clean:
	rm -rf $(VENV) .envs build dist
