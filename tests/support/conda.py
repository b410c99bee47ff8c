"""A stand-in for conda. It does what Snakemake asks of conda, with environments of uv.

It installs the pip section of an environment and runs the post-deploy script, as conda and Snakemake would. It cannot show
whether conda-forge's own `python` and `pip` work. `install(folder)` puts a program `conda` into the folder, and an
`apptainer` that runs a command without its image.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml


def install(folder: Path) -> Path:
    """Write the programs, and return the folder to put on PATH."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    lines = {
        "conda": f'exec "{sys.executable}" "{Path(__file__).resolve()}" "{folder}" "$@"',
        "apptainer": """case $1 in
            --version) echo apptainer version 1.3.0 ;;
            *) for last; do :; done; exec sh -c "$last" ;;
        esac""",
    }
    for name, text in lines.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    # Snakemake sources this script with the environment's folder.
    (programs / "activate").write_text('source "$1/bin/activate"\n')
    return programs


def create(prefix: Path, spec: Path) -> None:
    parts = yaml.safe_load(spec.read_text(encoding="utf-8"))["dependencies"]
    version = next(part.split("=")[1] for part in parts if isinstance(part, str) and part.startswith("python"))
    wanted = spec.with_suffix(".txt")
    wanted.write_text("\n".join(next(part["pip"] for part in parts if isinstance(part, dict))), encoding="utf-8")
    uv = ["uv", "--no-config", "--quiet"]
    subprocess.run([*uv, "venv", "--seed", "--python", version, str(prefix)], check=True)
    install = [*uv, "pip", "install", "--requirements", str(wanted)]
    subprocess.run([*install, "--python", str(prefix / "bin/python")], check=True)


def main() -> None:
    root, *asked = sys.argv[1:]
    match asked:
        case ["info", "--json"]:
            print(json.dumps({"conda_prefix": root, "platform": "linux-64"}))
        case ["--version"]:
            print("conda 24.7.1")
        case ["config", "--get", "channel_priority", "--json"]:
            print(json.dumps({"get": {"channel_priority": "strict"}}))
        case ["env", "create", *options]:
            given = dict(zip(options, [*options[1:], ""], strict=True))
            create(Path(given["--prefix"]), Path(given["--file"]))
        case ["clean", *_]:
            pass
        case _:
            sys.exit(f"conda: not known here: {' '.join(asked)}")


if __name__ == "__main__":
    main()
