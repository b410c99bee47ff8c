# What there is to run: `just` lists it. (`uv tool install rust-just`, or any package manager's `just`.)

_list:
    @just --list

# The tests of every day: minutes, on all cores
test *args:
    uv run pytest {{ args }}

# What takes longer: the main job as the README prints it, SLURM, a browser, a bucket, W&B, exports, long random tests
test-slow *args:
    uv run pytest -m "slow or hypothesis" {{ args }}

# The page in the browser to try prompts on
playground *args:
    uv run --group ui python scripts/playground.py {{ args }}

# All that CI runs, in a fresh clone of the last commit
ci:
    #!/usr/bin/env bash
    set -euo pipefail
    folder=$(mktemp -d)
    git clone --quiet . "$folder/checkout"
    bash "$folder/checkout/.ci/run"

# Types, formatting and lint
lint:
    uv run bash .ci/lint

# Put the formatting right
format:
    uv run ruff check --fix .
    uv run ruff format .
    uv run snakefmt Snakefile rules

# Make what is made from something else: pages, pictures, environments
generate: configuration measures cards pins dockerfile rulegraph

# docs/reference/configuration.md, from the schema
configuration:
    uv run python docs/make_configuration.py

# docs/reference/measures.md, from the registries of measures and embeddings
measures:
    uv run python docs/make_measures.py

# docs/reference/cards.md, from the estimate of a training's memory
cards:
    uv run python docs/make_cards.py

# The README's pictures, from a finished main job and Debian's Chromium
pictures:
    uv run python docs/make_pictures.py

# envs/*.yaml, from uv.lock
pins:
    uv run python envs/pin.py

# The Dockerfile of both conda environments
dockerfile:
    uv run python envs/containerize.py > Dockerfile

# docs/rulegraph.svg (takes Graphviz)
rulegraph:
    uv run snakemake --forceall --rulegraph dot results/samples | dot -Grankdir=LR -Tsvg > docs/rulegraph.svg

# The demo's corpus, from the sounds that resources/base/make_corpus.py made
demo-corpus corpus="/var/tmp/corpus":
    uv run python resources/base/make_backwards.py --corpus {{ corpus }} --out resources/demo/corpus

# Whether the working tree gives the same bytes as a revision
equal revision="HEAD":
    uv run python benchmarks/equal_results.py make /tmp/equal-before --revision {{ revision }}
    uv run python benchmarks/equal_results.py make /tmp/equal-after
    uv run python benchmarks/equal_results.py compare /tmp/equal-before /tmp/equal-after
