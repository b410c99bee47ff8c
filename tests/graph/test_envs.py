"""The conda environments hold the versions of uv.lock, resolve, and are made and used where there is a conda."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conda import install
from conftest import ROOT, copy_checkout, run_snakemake
from packaging.markers import Marker

ENVS = sorted((ROOT / "envs").glob("*.yaml"))
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux"}


def pip_section(env: Path) -> tuple[list[str], list[str]]:
    """What conda installs, and what pip does."""
    parts = yaml.safe_load(env.read_text(encoding="utf-8"))["dependencies"]
    return [part for part in parts if isinstance(part, str)], next(p["pip"] for p in parts if isinstance(p, dict))


def locked() -> dict[str, str]:
    """Versions of uv.lock for Python 3.11 on Linux, by name."""
    found = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]:
        markers = package.get("resolution-markers", [])
        if not markers or any(Marker(marker).evaluate(PYTHON) for marker in markers):
            assert package["name"] not in found, package["name"]
            found[package["name"]] = package.get("version", "")
    return found


@pytest.mark.parametrize("env", ENVS, ids=lambda path: path.stem)
def test_environment_is_in_step_with_the_lock(env: Path) -> None:
    conda, pip = pip_section(env)
    # A compiler for torch.compile, where models run.
    assert conda == ["python =3.11", *(["gxx =13"] if env.stem == "model" else []), "pip"]
    after = env.with_suffix(".post-deploy.sh")
    if after.is_file():
        pip = pip + re.findall(r"\S+==\S+", after.read_text(encoding="utf-8"))
    versions = locked()
    assert len(pip) > 10
    for entry in pip:
        name, _, version = entry.partition("==")
        assert version == versions[re.sub(r"[-_.]+", "-", name).lower()], f"{entry}: run uv run python envs/pin.py"


@pytest.mark.parametrize("env", ENVS, ids=lambda path: path.stem)
def test_environment_resolves(env: Path, tmp_path: Path) -> None:
    """pip finds versions of everything else that go with the pinned ones; takes seconds, and the network."""
    if not shutil.which("uv"):
        pytest.skip("uv is not on PATH")
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("\n".join(pip_section(env)[1]), encoding="utf-8")
    # Not this project's settings: its overrides are unknown to conda's pip.
    command = ["uv", "pip", "compile", "--quiet", "--no-config", "--python-version", "3.11", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    if "error sending request" in done.stderr or "Could not connect" in done.stderr:
        pytest.skip(f"PyPI cannot be reached: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    assert set(pip_section(env)[1]) <= set(re.findall(r"^\S+==\S+", done.stdout, re.M))


def test_every_rule_names_an_environment_that_is_there() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("rules/*.smk"))
    named = {name for name in re.findall(r'"\.\./(envs/[^"]+)"', text)}
    assert named == {f"envs/{env.name}" for env in ENVS}


@pytest.fixture(params=["conda", "stand-in"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A PATH with conda on it, or with what stands in for it: tests/support/conda.py."""
    if request.param == "stand-in":
        return f"{install(tmp_path / 'conda')}:{os.environ['PATH']}"
    if not shutil.which("conda"):
        pytest.skip("conda is not on PATH: the environments were not made by it")
    return os.environ["PATH"]


def snakemake(checkout: Path, path: str, *more: str) -> str:
    done = run_snakemake("--cores", "2", "--use-conda", *more, cwd=checkout, env={"PATH": path}, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_smallest_environment_is_made_and_runs_a_rule(tmp_path: Path, path: str) -> None:
    checkout = copy_checkout(tmp_path / "checkout")
    target = "results/data/demo/manifests/validation.csv"
    snakemake(checkout, path, "--", target)
    assert (checkout / target).is_file()
    assert len(list((checkout / ".snakemake/conda").glob("*/bin/python"))) == 1
    assert "Nothing to be done" in snakemake(checkout, path, "-n", target)


def test_dockerfile_is_what_containerize_gives() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "envs/containerize.py"], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    made = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert made == done.stdout, "run uv run python envs/containerize.py > Dockerfile"
    for env in ENVS:
        assert f"COPY envs/{env.name} " in made
        assert (f"COPY envs/{env.stem}.post-deploy.sh " in made) == env.with_suffix(".post-deploy.sh").is_file()


def test_container_is_used_where_one_is_named(tmp_path: Path) -> None:
    """As far as a dry run goes: apptainer is asked for its version, and in the image conda for its own."""
    checkout, programs = copy_checkout(tmp_path / "checkout"), install(tmp_path / "conda")
    (checkout / "site.yaml").write_text("cluster: {container: 'docker://example.org/sao:1'}\n")
    path = f"{programs}:{os.environ['PATH']}"
    said = snakemake(checkout, path, "--software-deployment-method", "apptainer", "-n", "--configfile=site.yaml")
    assert "image docker://example.org/sao:1 will be pulled" in said
    assert "will be pulled" not in snakemake(checkout, path, "-n")
