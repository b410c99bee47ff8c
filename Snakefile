# Fine-tune Stable Audio Open on captioned audio: archives -> WAVs -> manifests -> splits -> dataset configs ->
# latents and encoded captions -> training checkpoints -> exported model -> rendered samples.
import json
import logging
import os
import shlex
import sys
import tempfile
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.20")

# Snakemake follows a chain of jobs by recursion, a few calls deep for each leg of a training.
sys.setrecursionlimit(100_000)

# If the disk of the log is full, logging must not hide the line that says so.
logging.raiseExceptions = False

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))
from sao.base.command import InputError
from sao.config.layers import stand_alone
from sao.config.resolve import ROLES, check_file
from sao.data.corpora import resolve
from sao.base.files import check_room, content_key, link_folder
from sao.plan.plan import Plan
from sao.plan.resources import CAPTIONS, EMBEDDED, ENCODED, START, grown, megabytes, rows


report: "report/workflow.rst"


# These checks come first, because Snakemake itself reports such faults badly.
try:
    check_room(Path(".snakemake"), 1_000_000, "the records of Snakemake")
    temporary = os.environ.get("TMPDIR") or tempfile.gettempdir()
    check_room(Path(temporary), 1_000_000, "temporary files of Snakemake")
    if os.path.isfile("config.yaml"):
        check_file(Path("config.yaml"))
except InputError as error:
    raise WorkflowError(str(error)) from None


configfile: "config.yaml"


# In the order in which they were merged.
config_files = [
    "config.yaml",
    *(path for path in map(str, workflow.configfiles) if path != "config.yaml"),
]
own = workflow.config_settings.overwrite_config  # of --configfile and --config
try:
    config = stand_alone(config, own, Path("config.yaml"))
    config = resolve(config, [Path(path) for path in config_files])
    PLAN = Plan(
        config,
        # A dry run writes nothing, and neither does a process that runs a single job.
        remembers=lambda: workflow.is_main_process
        and workflow.executor_plugin is not None
        and not workflow.dryrun,
    )
except InputError as error:
    raise WorkflowError(str(error)) from None

SCRIPTS = Path(workflow.basedir) / "scripts"
# The text of a command is a rerun trigger, so it must not contain a path of a machine: it finds the scripts through the
# environment. The scripts import modules from their own folder, which PYTHONSAFEPATH would forbid.
chosen = "" if config["device"] == "auto" else f"export SAO_DEVICE={config['device']}; "
shell.prefix(
    f"set -euo pipefail; export SCRIPTS={shlex.quote(str(SCRIPTS))}; unset PYTHONSAFEPATH; {chosen}"
)


# On one machine, one GPU job runs at a time (with more GPUs, use `--resources gpu=4`). On a cluster the scheduler decides.
ON_ONE_MACHINE = workflow.resource_settings.nodes is None
if ON_ONE_MACHINE and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", 1)


# Snakemake's limit of jobs per second is for clusters. Here it would only cost: while a job waits for room, Snakemake would
# look for jobs to start once a second for each job that has ended, which takes half a processor after a hundred jobs.
onstart:
    if ON_ONE_MACHINE:
        workflow.scheduler.job_rate_limiter = None


# With `--sdm conda apptainer`, the conda environments are those of this image.
if config["cluster"]["container"]:

    containerized: config["cluster"]["container"]


# These fetch from the internet, and the nodes of a cluster may have none.
localrules:
    download,
    fetch,
    rehearse,
    base_model,
    embedding_model,
    download_weights,
    weights,


wildcard_constraints:
    corpus="[^/]+",
    split="[^/]+",
    base_model="[^/]+",
    run="[^/]+",


include: "rules/common.smk"
include: "rules/storage.smk"
include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/training.smk"
include: "rules/weights.smk"
include: "rules/rendering.smk"
include: "rules/listening.smk"
include: "rules/evaluation.smk"
include: "rules/pages.smk"
include: "rules/exports.smk"
include: "rules/publish.smk"
include: "rules/verify.smk"
include: "rules/failures.smk"


rule all:
    default_target: True
    input:
        "results/samples",
        PLAN.exports.all(),


# Fetches everything that comes from the internet, for clusters where only some nodes have it.
rule downloads:
    input:
        PLAN.downloads(),


# The forms of the models that the config names for other programs.
rule exports:
    input:
        ask(PLAN.exports.all, or_stop(PLAN.exports.nothing)),
    localrule: True


# The only target that uploads a model; no other target includes it.
rule publish:
    input:
        ask(PLAN.publish.uploads, or_stop(PLAN.publish.nothing_to_publish)),
    localrule: True
