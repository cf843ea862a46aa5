# make quickstart: a study on this machine.  make test: everything that CI runs.  make demo: a study on a cluster.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := bash
BIN := .venv/bin
# Where bytecode may not be kept, every process would compile torch and Transformers anew: 16 s a process, not 8.
export PYTHONDONTWRITEBYTECODE :=
# Two at a time: unit and API tests wait more than they compute, but torch's ranks do not.
PYTEST := $(BIN)/pytest -q
PARALLEL := -n 2 --dist worksteal

.PHONY: help quickstart test test-unit test-storage test-training test-ranks test-samplers test-api test-cluster verify format crds cluster cluster-down images demo bench bench-samplers bench-pruning gpu-check clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

quickstart: examples/data/reviews.csv ## Run a study on this machine: ten trials, one to three minutes
	@hack/venv.sh runner
	@$(BIN)/hpstudy run examples/reviews.yaml

examples/data/reviews.csv: examples/fetch_reviews.py
	@hack/venv.sh runner
	@$(BIN)/python examples/fetch_reviews.py && touch $@

test: verify test-unit test-storage test-training test-ranks test-samplers test-api test-cluster ## Everything: checks, unit, storage, training, rank, sampler, API and cluster tests

test-unit: examples/data/reviews.csv ## The packages alone
	@hack/venv.sh dev
	@$(PYTEST) $(PARALLEL) tests/unit --ignore=tests/unit/samplers

test-storage: ## What is kept in a database: SQLite, real PostgreSQL and MariaDB
	@hack/venv.sh dev
	@$(PYTEST) $(PARALLEL) tests/storage

test-training: examples/data/reviews.csv ## What trains: tasks, the Trainer, searches, the examples
	@hack/venv.sh dev
	@$(PYTEST) $(PARALLEL) tests/training

test-ranks: ## Worker groups: real processes, real gloo ranks, faults
	@hack/venv.sh dev
	@$(PYTEST) $(PARALLEL) tests/ranks

test-samplers: ## The samplers of all backends, against their real engines
	@hack/venv.sh dev
	@$(PYTEST) $(PARALLEL) tests/unit/samplers

test-api: ## The operator against a real API server
	@hack/venv.sh dev
	@$(PYTEST) $(PARALLEL) tests/api

test-cluster: examples/data/reviews.csv ## Studies on a kind cluster of three nodes
	@hack/venv.sh dev
	@$(PYTEST) tests/cluster

verify: ## Lint, types, import layers, generated files up to date
	@hack/venv.sh dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python hack/crds.py --check

format: ## Format the code
	@hack/venv.sh dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

crds: ## Generate the CRD from the types
	@hack/venv.sh dev
	@$(BIN)/python hack/crds.py

cluster: ## A kind cluster of three nodes; prints its KUBECONFIG
	@hack/cluster/up.sh 2

cluster-down: ## Remove it; its caches stay
	@hack/cluster/down.sh

images: examples/data/reviews.csv ## Build the images and load them into the cluster
	@hack/images/load.sh

demo: examples/data/reviews.csv ## From nothing: cluster, images, chart, a study, its results
	@hack/demo.sh

bench: examples/data/reviews.csv ## The benchmarks; the one on a cluster where KUBECONFIG names one
	@hack/venv.sh dev
	@$(BIN)/python -m benchmarks

SEEDS := 10
bench-samplers: ## The samplers against each other: an hour; SEEDS=2 takes a fifth of it
	@hack/venv.sh dev
	@$(BIN)/python -m benchmarks.samplers --seeds $(SEEDS)

bench-pruning: examples/data/reviews.csv ## What pruning saves: under DDP, and over many searches; an hour and a half
	@hack/venv.sh dev
	@$(BIN)/python -m benchmarks.pruning
	@$(BIN)/python -m benchmarks.pruning_replay

gpu-check: ## What only a GPU can show: NCCL, bf16, flat device memory; says so where there is none
	@hack/venv.sh dev
	@$(PYTEST) tests/gpu

clean: ## Remove what was made here; clusters and caches stay
	rm -rf .venv hpstudy-runs examples/data benchmarks/results dist
