"""Results in object storage: the graph from archives to dataset configs, in a bucket of an S3 server on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import FORKS, GRAPH, ROOT, copy_checkout, forked_jobs, publish
from sao.base.command import InputError
from sao.base.files import link_folder

NEEDED = ("snakemake_storage_plugin_s3", "moto", "flask", "flask_cors")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
TARGET = "results/data/packed/dataset_configs/demo.sha256"
storage = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (uv sync)")


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of S3 that keeps its buckets in memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path_factory.mktemp("server") / "log").open("w+") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(300):
                assert server.poll() is None, (log.seek(0), log.read())
                with socket.socket() as asked:
                    if asked.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def snakemake(checkout: Path, *more: str, endpoint: str = "", target: str = TARGET) -> str:
    env = (
        os.environ
        | forked_jobs()
        | {
            "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": endpoint,
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "key",
            "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "secret",
        }
    )
    command = [FORKS[0].python(), "-m", "snakemake", *GRAPH, "--configfile=packed.yaml", target, *more]
    done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def in_bucket(endpoint: str) -> dict[str, bytes]:
    """What the bucket holds, by key."""
    import boto3

    options = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    bucket = boto3.resource("s3", endpoint_url=endpoint, **options).Bucket("bucket")
    return {entry.key: entry.get()["Body"].read() for entry in bucket.objects.filter(Prefix="sao/")}


@storage
def test_data_stage_in_a_bucket_is_that_on_a_disk(tmp_path: Path, endpoint: str) -> None:
    split = publish(tmp_path / "web", "development", [f"{number}.wav" for number in range(6)])
    corpus = {"splits": {split.name: split.config()}, "train": [split.name], "split": {"method": "fraction"}}
    run = {"base_model": "demo", "corpus": "packed", "steps": 1, "batch_size": 1}
    here, there, other = (copy_checkout(tmp_path / name) for name in ("disk", "bucket", "other"))
    for checkout in (here, there, other):
        (checkout / "packed.yaml").write_text(json.dumps({"corpora": {"packed": corpus}, "runs": {"packed": run}}))
    snakemake(here)
    page = (ROOT / "docs/guides/scaling.md").read_text(encoding="utf-8")
    given = re.search(r"uv run snakemake .*(--default-storage-provider .*)", page)[1].split()
    snakemake(there, *given, endpoint=endpoint)
    stored = in_bucket(endpoint)
    made = {
        path.relative_to(here).as_posix(): path.read_bytes()
        for folder in ("data", "models")
        for path in (here / "results" / folder).rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(here).parts)
    }
    table = "results/data/packed/splits/train.csv"
    assert len(made) > 30 and table in made
    different = [name for name, content in made.items() if stored.get(f"sao/{name}") != content]
    assert different == []
    assert "Nothing to be done" in snakemake(there, "-n", *given, endpoint=endpoint)
    # From another working folder, with no local copy of anything: the bucket is all there is.
    assert "Nothing to be done" in snakemake(other, "-n", *given, endpoint=endpoint, target=table)


def test_link_to_local_copies_takes_no_folder_of_the_users_away(tmp_path: Path) -> None:
    link, copies = tmp_path / "results", tmp_path / "storage/s3/bucket/results"
    link_folder(link, copies)
    (link / "a").write_text("a")
    assert (copies / "a").read_text() == "a"
    link_folder(link, copies)
    link_folder(link, tmp_path / "storage/s3/other/results")
    assert link.samefile(tmp_path / "storage/s3/other/results") and (copies / "a").is_file()
    link.unlink()
    link.mkdir()
    with pytest.raises(InputError, match="in the way"):
        link_folder(link, copies)
