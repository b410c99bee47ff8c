"""Declared weights are checked by their hash and key by key, read as data, and brought to one form."""

from __future__ import annotations

import json
import pickle
import subprocess
from pathlib import Path

import networks
import pytest
import torch
from conftest import assert_fails, assert_succeeds, checksum, run_script
from hub import serve_hub
from sao.base.names import read_digests

REPO, REVISION = "someone/weights", "e" * 40


def weights(
    name: str, path: Path | None, output: Path, env: dict[str, str] | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    given = ["--name", name, "--settings", json.dumps({"sha256": None} | settings)]
    given += ["--file", path] if path else []
    given += ["--output", output / "model.safetensors", "--digest", output / "checksums.sha256"]
    return run_script("weights", *given, env=env)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    return {name: networks.write(folder / f"{name}.pth", name) for name in networks.NETWORKS}


@pytest.mark.parametrize("network", networks.NETWORKS)
def test_published_file_is_brought_into_one_form(network: str, files: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    file = files[network]
    done = weights(networks.NETWORKS[network][0], file, tmp_path, sha256=checksum(file, "sha256"))
    assert_succeeds(done)
    found = load_file(tmp_path / "model.safetensors")
    wanted = {k: v for k, v in networks.tensors(network).items() if not k.endswith("num_batches_tracked")}
    assert set(found) == set(wanted) and all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert read_digests(tmp_path / "checksums.sha256") == {
        "model.safetensors": checksum(tmp_path / "model.safetensors", "sha256")
    }


def test_file_of_another_hash_or_network_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    assert_fails(weights("vggish", files["vggish"], tmp_path, sha256="0" * 64), files["vggish"], "SHA-256", "0" * 64)
    sha256 = checksum(files["passt"], "sha256")
    assert_fails(
        weights("vggish", files["passt"], tmp_path, sha256=sha256), files["passt"], "not the weights of Vggish"
    )
    assert not (tmp_path / "model.safetensors").exists()


def test_file_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    state = dict(networks.tensors("vggish"))
    state["features.3.weight"] = state["features.3.weight"][:, :2]
    torch.save(state, tmp_path / "a.pth")
    assert_fails(weights("vggish", tmp_path / "a.pth", tmp_path), tmp_path / "a.pth", "features.3.weight")


class Trap:
    """An object whose pickle makes a file when it is loaded."""

    path = ""

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path(self.path),)


def test_pickle_is_read_as_data(tmp_path: Path) -> None:
    """Some published files hold settings in classes of other packages. What would run code is left out."""
    trap = Trap()
    trap.path = str(tmp_path / "touched")
    state = {"model": networks.tensors("vggish"), "xp.cfg": trap}
    torch.save(state, tmp_path / "a.pth", pickle_module=pickle)
    assert_succeeds(weights("vggish", tmp_path / "a.pth", tmp_path))
    assert (tmp_path / "model.safetensors").is_file() and not (tmp_path / "touched").exists()
    (tmp_path / "b.pth").write_bytes(b"no weights")
    assert_fails(weights("vggish", tmp_path / "b.pth", tmp_path), tmp_path / "b.pth", "cannot be loaded safely")


def test_file_comes_from_the_hub(files: dict[str, Path], tmp_path: Path) -> None:
    data = files["vggish"].read_bytes()
    place = {"repo": REPO, "revision": REVISION, "file": "vggish.pth"}
    with serve_hub({(REPO, REVISION): {"vggish.pth": data}}) as hub:
        hub.lfs = (*hub.lfs, ".pth")
        env = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
        assert_succeeds(weights("vggish", None, tmp_path / "a", env, **place))
        assert_fails(weights("vggish", None, tmp_path / "b", env, **place, sha256="0" * 64), "SHA-256", "0" * 64)
    assert (tmp_path / "a/model.safetensors").is_file() and not (tmp_path / "a/.partial").exists()


def audioseal_file(part: str, path: Path) -> Path:
    """A file of AudioSeal in its published form: keys of the older network, weights normalised, settings beside them."""
    from sao.models import audioseal

    torch.manual_seed(0)
    state = {}
    for key, value in audioseal.make(part).state_dict().items():
        old = key.replace(".inner_conv.", ".")
        if key.endswith("inner_conv.weight"):
            length = value.flatten(1).norm(dim=1).reshape(-1, *[1] * (value.ndim - 1))
            state |= {f"{old}_g": 2 * length, f"{old}_v": value}
        else:
            state[old] = value
    torch.save({"xp.cfg": {"seanet": 1}, "model": state}, path)
    return path


def test_audioseal_is_brought_into_the_form_of_its_package(tmp_path: Path) -> None:
    pytest.importorskip("audioseal")
    from sao.models import audioseal

    file = audioseal_file("detector", tmp_path / "detector.pth")
    assert_succeeds(weights("audioseal", file, tmp_path))
    loaded, plain = audioseal.load("detector", tmp_path / "model.safetensors"), torch.load(file)["model"]
    key = next(key for key in plain if key.endswith("_v"))
    new = {k.replace(".inner_conv.", "."): v for k, v in loaded.state_dict().items()}[key.removesuffix("_v")]
    assert torch.allclose(new, 2 * plain[key], atol=1e-5)  # the length was doubled
    torch.save({key: value for key, value in plain.items() if "lstm" not in key}, tmp_path / "less.pth")
    assert_fails(weights("audioseal", tmp_path / "less.pth", tmp_path), tmp_path / "less.pth", "keys are missing")
