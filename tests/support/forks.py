"""Scripts and Snakemake in processes of their own that start at once: forked from a server that has imported the libraries.

Imports are most of what a script takes on a small input (seven seconds of processor time with torch and
stable-audio-tools), and half of what Snakemake takes to plan. A forked process finds them done. All else is as with
`python scripts/<name>.py` and `snakemake`: the environment, the working directory, the output, signals, the exit code.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from settings import as_options

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

# What reads the settings of the Hub as it is imported, and so has to be imported by each script anew.
SERVER = """
import gc, json, os, runpy, signal, sys, tempfile
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # libraries print while they are imported
import numpy, pandas, scipy.signal, soundfile, py7zr, matplotlib.figure, jinja2
import torch, torchaudio, tokenizers, torchao.optim
import transformers.models.t5, lightning_fabric, peft, stable_audio_tools.models.factory, stable_audio_tools.models.diffusion
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
get_checkpoint_conversion_mapping("t5")  # which compiles hundreds of expressions
import snakemake.cli, snakemake_executor_plugin_slurm, snakemake_storage_plugin_s3, jsonschema
READERS = {"huggingface_hub", "transformers", "lightning_fabric", "peft", "stable_audio_tools", "accelerate"}
gc.freeze()
print("ready", file=answers, flush=True)
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        print(os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1]), file=answers, flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, file=answers, flush=True)
        continue
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for number, file in ((0, "/dev/null"), (1, order["output"] + ".out"), (2, order["output"] + ".err")):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    if order["purge"]:
        for name in [name for name in sys.modules if name.split(".")[0] in READERS]:
            del sys.modules[name]
    tempfile.tempdir = None
    sys.argv = order["command"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    code = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        import traceback
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
"""


class Forks:
    """A server that forks a process for each script to be run. It starts when the first one is.

    `folder` is for what the scripts print. Scripts that name `model`, a base model in place, find its Hub cache set; all
    others import what reads the Hub's settings anew, which takes a second more.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model, self.count, self.lock = folder, model, 0, threading.Lock()
        self.server: subprocess.Popen[str] | None = None

    def _start(self) -> subprocess.Popen[str]:
        env = {"HF_HUB_CACHE": str(self.model.resolve() / "hub"), "HF_HUB_OFFLINE": "1"}
        env |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
        with (self.folder / "server").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-c", SERVER],
                env=os.environ | env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        atexit.register(server.kill)
        assert server.stdout.readline() == "ready\n", (self.folder / "server").read_text()
        return server

    def order(self, **order: object) -> int:
        with self.lock:
            self.server = self.server or self._start()
            print(json.dumps(order), file=self.server.stdin, flush=True)
            return int(self.server.stdout.readline())

    def start(self, name: str, *arguments: object, cwd: Path, env: dict[str, str | None] | None = None) -> Started:
        """`python scripts/<name>.py arguments…`; of `env`, None takes a variable away."""
        command = [str(SCRIPTS / f"{name}.py"), *as_options(name, list(map(str, arguments)))]
        purge = str(self.model) not in command or any(key.startswith("HF_") for key in env or {})
        return self._fork(command, cwd, env, purge)

    def snakemake(self, *arguments: object, cwd: Path, env: dict[str, str | None] | None = None) -> Started:
        """`snakemake arguments…`"""
        program = shutil.which("snakemake", path=(env or {}).get("PATH"))
        return self._fork([program, *map(str, arguments)], cwd, env, False)

    def _fork(self, command: list[str], cwd: Path, env: dict[str, str | None] | None, purge: bool) -> Started:
        self.count += 1
        output = self.folder / str(self.count)
        environment = {key: value for key, value in (os.environ | (env or {})).items() if value is not None}
        pid = self.order(command=command, cwd=str(cwd), env=environment, output=str(output), purge=purge)
        return Started(self, pid, command, output)


@dataclass
class Started:
    """A process that runs, in a process group of its own."""

    forks: Forks
    pid: int
    command: list[str]
    output: Path

    def stderr(self) -> str:
        return self.output.with_suffix(".err").read_text(encoding="utf-8")

    def finish(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` returns; what takes longer than `timeout` s is killed."""
        alarm = threading.Timer(timeout, os.killpg, (self.pid, 9))
        alarm.start()
        try:
            code = self.forks.order(wait=self.pid)
        finally:
            alarm.cancel()
        stdout = self.output.with_suffix(".out").read_text(encoding="utf-8")
        return subprocess.CompletedProcess(self.command, code, stdout, self.stderr())
