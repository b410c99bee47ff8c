"""Print a Dockerfile of the conda environments: uv run python envs/containerize.py > Dockerfile.

The Dockerfile is that of `snakemake --containerize`, with the post-deploy scripts added, which Snakemake (9.27,
deployment/containerize.py) leaves out. Snakemake asks conda for its platform first. A small program answers in conda's place,
so conda need not be installed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONDA = """#!/bin/sh
case "$*" in
"info --json") echo '{"conda_prefix": "/", "platform": "linux-64"}' ;;
"--version") echo "conda 24.7.1" ;;
"config --get channel_priority --json") echo '{"get": {"channel_priority": "strict"}}' ;;
*) echo "conda: containerize.py has no answer to: $*" >&2; exit 1 ;;
esac
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "conda")
        program.write_text(CONDA, encoding="utf-8")
        program.chmod(0o755)
        snakemake = Path(sys.executable).with_name("snakemake")
        env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
        command = [snakemake, "--containerize", "dockerfile", "--quiet"]
        text = subprocess.run(command, cwd=HERE.parent, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name, prefix in re.findall(r"^COPY envs/(\S+)\.yaml (\S+)/environment\.yaml$", text, re.MULTILINE):
        script = HERE / f"{name}.post-deploy.sh"
        if script.is_file():
            text += f"\nCOPY envs/{script.name} {prefix}/post-deploy.sh\n"
            text += f"RUN conda run --prefix {prefix} bash {prefix}/post-deploy.sh\n"
    print(text, end="")


if __name__ == "__main__":
    main()
