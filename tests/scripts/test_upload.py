"""Exactly the model and its card are published, to the repository of the config, or one line says why nothing is sent."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_fails, assert_succeeds, checksum, link_checkout, run_script, run_snakemake
from hub import Hub, serve_hub
from safetensors.numpy import save
from servers import Server

TOKEN = "hf_secretOfTheTests"
REPO = "someone/my-model"
FILES = {"model.safetensors", "model_config.json", "README.md", "ATTRIBUTION.csv"}
WAY = ("write access", "https://huggingface.co/settings/tokens", "hf auth login", "HF_TOKEN")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub({}) as hub:
        hub.token = TOKEN
        yield hub


def write_export(folder: Path, seed: int = 0) -> Path:
    """Write a folder like that of rules `export` and `model_card`: the four files, export.json, and others."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({"a": np.frombuffer(np.random.default_rng(seed).bytes(300_000), np.uint8)})
    (folder / "model.safetensors").write_bytes(weights)
    sha = checksum(folder / "model.safetensors", "sha256")
    (folder / "export.json").write_text(
        json.dumps({"leg": "step-00000500", "keys": 1, "changed_keys": 1, "sha256": sha})
    )
    (folder / "model_config.json").write_text('{"model_type": "diffusion_cond"}')
    (folder / "README.md").write_text(f"---\nlicense: other\n---\n\n# demo\n\n{sha}, naïve café\n", encoding="utf-8")
    (folder / "ATTRIBUTION.csv").write_text("clip_id,author\na,Jürgen\n", encoding="utf-8")
    (folder / "metrics.csv").write_text("step\n1\n")
    (folder / "step-00000500").mkdir(exist_ok=True)
    (folder / "step-00000500/state.ckpt").write_bytes(b"state")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_export(tmp_path / "demo")


def environment(hub: Hub | str, home: Path, **more: str) -> dict[str, str]:
    """The environment for the stand-in, which lacks Xet. `HF_HUB_DISABLE_XET` switches the client to plain HTTP."""
    url = hub if isinstance(hub, str) else hub.endpoint
    return {
        "HF_ENDPOINT": url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "TQDM_DISABLE": "1",  # as under Snakemake
        **more,
    }


def upload(hub: Hub | str, folder: Path, *more: object, repo: str = REPO, fresh: bool = False, **variables: str):
    home = folder.parent / "home"
    result = run_script(
        "upload", "--run", "demo", "--folder", folder, "--digest", folder / "export.json", "--repo", repo,
        "--output", folder.parent / "published.json", *more, env=environment(hub, home, **variables),
        log=folder.parent / "log.txt", fresh=fresh,
    )  # fmt: skip
    assert TOKEN not in result.stdout + result.stderr + (folder.parent / "log.txt").read_text()
    return result


def assert_published(hub: Hub, folder: Path) -> None:
    """The Hub has the four files and no others of the folder, and the JSON names them."""
    files = hub.at(REPO)
    assert set(files) == FILES | {".gitattributes"}
    assert all(files[name] == (folder / name).read_bytes() for name in FILES)
    assert json.loads((folder.parent / "published.json").read_text()) == {
        "repo": REPO,
        "commit": hub.heads[REPO],
        "url": f"{hub.endpoint}/{REPO}/tree/{hub.heads[REPO]}",
        "sha256": json.loads((folder / "export.json").read_text())["sha256"],
    }


def assert_nothing_sent(hub: Hub, folder: Path) -> None:
    assert not [step for step in hub.steps() if not step.endswith("/api/repos/create")]
    assert not hub.objects and not hub.messages and not (folder.parent / "published.json").exists()


def test_model_and_card_in_one_commit_of_a_private_repository(hub: Hub, folder: Path) -> None:
    assert_succeeds(upload(hub, folder, fresh=True))  # in a new process, whose Hub client shows its bars
    assert_published(hub, folder)
    assert hub.private == {REPO: True}
    assert hub.messages == ["demo, step-00000500"]
    # Large files go to the CDN's signed address, which gets no token.
    assert [path for server, method, path, _ in hub.asked if server == "cdn"] == [f"/{next(iter(hub.objects))}"]
    assert not [headers for server, _, _, headers in hub.asked if server == "cdn" and TOKEN in str(headers)]
    log = (folder.parent / "log.txt").read_text()
    assert "made a private repository" in log and "model.safetensors:   0%" in log and "/tree/" in log


def test_public_only_if_asked_for(hub: Hub, folder: Path) -> None:
    assert_succeeds(upload(hub, folder, "--public"))
    assert_published(hub, folder)
    assert hub.private == {REPO: False}


def test_large_file_in_parts(hub: Hub, folder: Path) -> None:
    hub.part_size = 100_000
    assert_succeeds(upload(hub, folder))
    assert_published(hub, folder)
    assert [len(part) for parts in hub.parts.values() for part in parts.values()][:3] == [100_000] * 3


def test_what_has_not_changed_is_not_sent_again(hub: Hub, folder: Path) -> None:
    assert_succeeds(upload(hub, folder))
    first = hub.heads[REPO]
    hub.asked.clear()
    assert_succeeds(upload(hub, folder))
    assert hub.heads[REPO] == first and len(hub.messages) == 1
    assert not [step for step in hub.steps() if step.startswith("PUT") or "/commit/" in step]
    assert_published(hub, folder)

    (folder / "README.md").write_text((folder / "README.md").read_text() + "More.\n")
    hub.asked.clear()
    assert_succeeds(upload(hub, folder))
    assert len(hub.messages) == 2 and not [step for step in hub.steps() if step.startswith("PUT")]
    assert_published(hub, folder)

    write_export(folder, seed=1)
    assert_succeeds(upload(hub, folder))
    assert_published(hub, folder)
    assert len(hub.objects) == 2


def test_large_file_goes_by_xet_unless_that_is_turned_off(hub: Hub, folder: Path) -> None:
    """The client uses Xet, as with the real Hub. The stand-in does not support it, and the error says so."""
    result = upload(hub, folder, HF_HUB_DISABLE_XET="0")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert f"error: {REPO}: cannot be published" in last and last.endswith("set HF_HUB_DISABLE_XET=1")
    assert f"GET /api/models/{REPO}/xet-write-token/main" in [f"{method} {path}" for _, method, path, _ in hub.asked]
    assert not hub.messages and not hub.objects


def make(hub: Hub, repo: str, private: bool) -> None:
    hub.heads[repo], hub.private[repo] = "1" * 40, private
    hub.repos[repo, "1" * 40] = {".gitattributes": b"", "notes.txt": b"mine"}


def test_public_repository_is_refused_where_a_private_one_is_wanted(hub: Hub, folder: Path) -> None:
    make(hub, REPO, private=False)
    result = upload(hub, folder)
    assert_fails(
        result, REPO, "is public", "nothing was uploaded", f"{hub.endpoint}/{REPO}/settings", "publish.private"
    )
    assert_nothing_sent(hub, folder)
    assert_succeeds(upload(hub, folder, "--public"))
    assert hub.at(REPO)["notes.txt"] == b"mine" and set(hub.at(REPO)) > FILES


def test_private_repository_stays_private(hub: Hub, folder: Path) -> None:
    make(hub, REPO, private=True)
    result = upload(hub, folder, "--public")
    assert_succeeds(result)
    assert hub.private[REPO] and f"{REPO} is private and stays so" in result.stderr


def test_repository_that_turns_out_public_gets_nothing(hub: Hub, folder: Path) -> None:
    """Someone made it between the two checks, or an organisation's rule makes it public."""
    hub.troubles = {"info": ["hide"]}
    make(hub, REPO, private=False)
    assert_fails(upload(hub, folder), REPO, "is public")
    assert_nothing_sent(hub, folder)


def test_without_a_token(hub: Hub, folder: Path) -> None:
    assert_fails(upload(hub, folder, HF_TOKEN=""), REPO, "no token", *WAY)
    assert not hub.asked
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    (home / "token").write_text(TOKEN)  # where `hf auth login` stores it
    assert_succeeds(upload(hub, folder, HF_TOKEN=""))
    assert_published(hub, folder)


def test_token_that_is_not_accepted(hub: Hub, folder: Path) -> None:
    result = upload(hub, folder, HF_TOKEN="hf_another")
    assert_fails(result, REPO, "does not accept the token (401 Unauthorized", *WAY)
    assert "hf_another" not in result.stderr
    assert_nothing_sent(hub, folder)


def test_token_that_can_only_read(hub: Hub, folder: Path) -> None:
    hub.role = "read"
    assert_fails(upload(hub, folder), REPO, "the token of someone can only read", *WAY)
    make(hub, REPO, private=True)
    assert_fails(upload(hub, folder), REPO, "can only read")
    assert_nothing_sent(hub, folder)


@pytest.mark.parametrize("there", [True, False])
def test_repository_of_someone_else(hub: Hub, folder: Path, there: bool) -> None:
    if there:
        make(hub, "other/model", private=True)
    result = upload(hub, folder, repo="other/model")
    assert_fails(result, "other/model", "may not write there (403 Forbidden: You", "publish.repo", *WAY)
    assert not hub.objects and not hub.messages


def test_offline_or_unreachable(hub: Hub, folder: Path) -> None:
    assert_fails(upload(hub, folder, HF_HUB_OFFLINE="1"), REPO, "HF_HUB_OFFLINE is set")
    assert not hub.asked
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert_fails(upload(url, folder), REPO, url, "is there a network?")
    assert not (folder.parent / "published.json").exists()


def test_server_that_is_no_hub(server: Server, folder: Path) -> None:
    (server.folder / "api/models/someone").mkdir(parents=True)
    (server.folder / "api/models" / REPO).write_text("<!DOCTYPE html>")
    assert_fails(upload(server.url, folder), REPO, server.url, "not JSON")


@pytest.mark.slow  # it waits
def test_hub_that_never_answers(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        assert_fails(upload(url, folder, HF_HUB_ETAG_TIMEOUT="1"), REPO, url, "is there a network?")


@pytest.mark.parametrize("trouble", [503, "drop", "lose"])
@pytest.mark.slow  # it waits
def test_failures_that_pass_are_waited_for(hub: Hub, folder: Path, trouble: int | str) -> None:
    steps = ("info", "whoami", "create", "yaml", "preupload", "batch", "put", "verify", "commit")
    hub.troubles = {step: [trouble] for step in steps}
    assert_succeeds(upload(hub, folder))
    assert_published(hub, folder)
    # If only the answer was lost, nothing is committed twice.
    assert hub.messages == ["demo, step-00000500"] and hub.private[REPO]
    assert not any(hub.troubles.values())


@pytest.mark.parametrize("step", ["create", "commit"])
@pytest.mark.slow  # it waits
def test_failure_that_does_not_pass(hub: Hub, folder: Path, step: str) -> None:
    hub.troubles = {step: [500] * 9}
    assert_fails(upload(hub, folder), REPO, "500 Internal Server Error", "try again later")
    hub.troubles = {step: [418]}
    assert_fails(upload(hub, folder), REPO, "418", "check publish.repo")
    assert not hub.messages and not (folder.parent / "published.json").exists()


def test_files_have_to_be_what_was_exported(hub: Hub, folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert_fails(upload(hub, folder), folder / "model.safetensors", "changed since it was exported", "run again")
    (folder / "model.safetensors").write_bytes(data)
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text("---\nlicense: other\n---\n# another\n")
    assert_fails(upload(hub, folder), folder / "README.md", "other weights")
    (folder / "README.md").write_text(card)
    (folder / "ATTRIBUTION.csv").unlink()
    assert_fails(upload(hub, folder), "ATTRIBUTION.csv")
    assert not hub.heads
    assert_nothing_sent(hub, folder)


def test_card_that_the_hub_refuses(hub: Hub, folder: Path) -> None:
    (folder / "README.md").write_text((folder / "README.md").read_text().replace("other", "my own"))
    assert_fails(upload(hub, folder), REPO, "Invalid metadata in README.md", '"license" must be one of')
    assert not hub.messages and not hub.objects


def test_name_that_no_repository_can_have(hub: Hub, folder: Path) -> None:
    assert_fails(upload(hub, folder, repo="someone/a--b"), "someone/a--b", "cannot be published")
    assert_nothing_sent(hub, folder)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project with an exported model of the demo."""
    folder = tmp_path / "checkout"
    link_checkout(folder)
    write_export(folder / "results/checkpoints/demo")
    return folder


def publish(checkout: Path, hub: Hub, publish: dict | None, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the target `publish` without the jobs before the upload."""
    (checkout / "mine.yaml").write_text(json.dumps({"runs": {"demo": {"publish": publish}}}))
    command = ["--cores", "1", "--configfile=mine.yaml", "--allowed-rules", "upload", "publish", *more, "--", "publish"]
    return run_snakemake(*command, cwd=checkout, env=environment(hub, checkout / "home"), timeout=120)


def test_target_publishes_the_runs_that_say_so_and_once(checkout: Path, hub: Hub) -> None:
    done = publish(checkout, hub, {"repo": REPO})
    assert done.returncode == 0, done.stderr
    shutil.copy(checkout / "results/published/demo.json", checkout / "results/checkpoints/published.json")
    assert_published(hub, checkout / "results/checkpoints/demo")
    assert hub.private == {REPO: True}
    hub.asked.clear()
    done = publish(checkout, hub, {"repo": REPO})
    assert done.returncode == 0 and "Nothing to be done" in done.stdout + done.stderr
    assert not hub.asked
    done = publish(checkout, hub, {"repo": "team/other", "private": False})
    assert done.returncode == 0 and hub.private == {REPO: True, "team/other": False}, done.stderr


def test_no_run_says_so(checkout: Path, hub: Hub) -> None:
    for more in ((), ("-n",)):
        done = publish(checkout, hub, None, *more)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
        assert len(lines) == 1 and "set runs.NAME.publish.repo" in lines[0] and "demo" in lines[0], done.stderr
    assert not hub.asked
