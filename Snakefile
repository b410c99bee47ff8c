# Fine-tune Stable Audio Open on captioned audio: archives -> WAVs -> manifests -> splits -> dataset configs ->
# latents -> training checkpoints -> exported model -> rendered samples.
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

# Snakemake follows a chain of jobs by calls within calls, a few for each leg of a training.
sys.setrecursionlimit(100_000)

# A log on a full disk must not bury the line that says so.
logging.raiseExceptions = False

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))
from sao.plan.code import code_hash
from sao.base.command import InputError
from sao.config.layers import stand_alone
from sao.config.resolve import ROLES, check_file
from sao.data.corpora import resolve
from sao.base.files import check_room, content_key, link_folder
from sao.plan.plan import Plan
from sao.plan.resources import EMBEDDED, ENCODED, START, grown, megabytes, rows


report: "report/workflow.rst"


# Snakemake stumbles over what these tell.
try:
    check_room(Path(".snakemake"), 1_000_000, "the records of Snakemake")
    temporary = os.environ.get("TMPDIR") or tempfile.gettempdir()
    check_room(Path(temporary), 1_000_000, "temporary files of Snakemake")
    if os.path.isfile("config.yaml"):
        check_file(Path("config.yaml"))
except InputError as error:
    raise WorkflowError(str(error)) from None


configfile: "config.yaml"


# In the order in which they were laid over each other.
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
# The commands find the scripts through the environment: their text, a rerun trigger, names no place on a machine.
# The scripts find their modules beside them, which Python's safe path forbids.
shell.prefix(
    f"set -euo pipefail; export SCRIPTS={shlex.quote(str(SCRIPTS))}; unset PYTHONSAFEPATH; "
)


# Here, jobs that need a GPU take turns (`--resources gpu=4` where there are more); on a cluster its scheduler sees to that.
if workflow.resource_settings.nodes is None and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", 1)


# With `--sdm conda apptainer`, the conda environments are those of this image.
if config["cluster"]["container"]:

    containerized: config["cluster"]["container"]


# These fetch from the internet, which the nodes of a cluster may not have.
localrules:
    download,
    rehearse,
    base_model,
    embedding_model,


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
include: "rules/rendering.smk"
include: "rules/evaluation.smk"
include: "rules/pages.smk"
include: "rules/publish.smk"
include: "rules/verify.smk"
include: "rules/failures.smk"


rule all:
    default_target: True
    input:
        "results/samples",


# Everything that needs the internet, for machines where only some nodes have it.
rule downloads:
    input:
        PLAN.downloads(),


# The only target that uploads a model, and part of no other. Of an exception Snakemake would tell the traceback.
rule publish:
    input:
        ask(
            PLAN.publish.uploads,
            lambda paths: paths or sys.exit(f"error: {PLAN.publish.nothing_to_publish()}"),
        ),
    localrule: True
