"""The key of a user's folder changes with its contents, not with time stamps. A dry run writes nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, listing, noise, run_snakemake, write_wav
from sao.base.files import sha256
from sao.data.formats import FORMATS
from sao.data.formats.base import InPlace
from sao.data.listing import Scanned, folder_key, stamps_of, write_listing

NAMES = ("a.wav", "a.txt", "sub/metadata.csv", "sub/{b}.wav", "{c}/d e.wav")


class Folder:
    """A folder of sounds, and the files that the last scan wrote about it."""

    def __init__(self, path: Path) -> None:
        self.root = path / "sounds"
        self.scanned = Scanned(path / "made/all.txt", path / "made/all.sha256", path / "made/all.seen")
        for name in NAMES:
            self.write(name, name)

    def write(self, name: str, key: str) -> None:
        write_wav(self.root / name, noise(key, 0.01))

    def names(self) -> list[str]:
        form = FORMATS["audiofolder"]
        assert isinstance(form, InPlace)
        return form.names(self.root, {"top": None})

    def key(self, remember: bool = False) -> str:
        return folder_key(self.root, self.names(), self.scanned, remember)

    def scan(self, key: str | None = None) -> str:
        """Write the files of rule `scan`. The key is the plan's, and the digests are in the form of `sha256sum`."""
        key = key or self.key()
        write_listing(self.scanned.listing, key, stamps_of(self.root, self.names()))
        with self.scanned.digests.open("w") as handle:
            subprocess.run(["sha256sum", "--", *self.names()], cwd=self.root, stdout=handle, check=True)
        return key

    def touch(self, stamp: int = 1_900_000_000) -> None:
        for name in self.names():
            os.utime(self.root / name, (stamp, stamp))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_key_is_that_of_what_matters(folder: Folder) -> None:
    first = folder.key()
    for name in ("e.png", ".f.wav", ".hidden/g.wav"):
        folder.write(name, name)
    assert folder.names() == sorted(NAMES) and folder.key() == first
    assert folder.scan() == folder.key() == first


def test_touch_changes_nothing_once_scanned(folder: Folder) -> None:
    first = folder.key()
    folder.touch()
    assert folder.key() != first  # there are no digests yet to compare with
    first = folder.scan()
    folder.touch(1_800_000_000)
    assert folder.key() == first


@pytest.mark.parametrize("remember", [False, True])
def test_touched_files_are_read_once_and_a_dry_run_writes_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, remember: bool
) -> None:
    first, read = folder.scan(), []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256(path)

    monkeypatch.setattr("sao.data.listing.sha256", counted)
    before = listing(folder.root.parent)
    folder.touch()
    assert folder.key(remember) == first and len(read) == len(NAMES)
    assert (listing(folder.root.parent) == before) is not remember
    assert folder.key(remember) == first and len(read) == len(NAMES) * (1 if remember else 2)


def test_touched_folder_that_is_scanned_again_keeps_its_key(folder: Folder) -> None:
    """Before a job runs again, Snakemake removes its outputs. A node of a cluster computes the key after that."""
    first = folder.scan()
    folder.touch()
    assert folder.key(remember=True) == first
    folder.scanned.listing.unlink()
    folder.scanned.digests.unlink()
    assert folder.key() == first
    folder.scan(first)
    assert folder.key() == first


@pytest.mark.parametrize("name", ["a.wav", "a.txt", "sub/{b}.wav"])
def test_new_content_of_the_same_size_changes_it(folder: Folder, name: str) -> None:
    first = folder.scan()
    folder.touch()
    folder.key(remember=True)
    folder.write(name, "other")
    os.utime(folder.root / name, (1_950_000_000, 1_950_000_000))
    assert folder.key() != first
    assert folder.scan() == folder.key() != first


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: folder.write("new.wav", "new"),
        lambda folder: (folder.root / "a.wav").unlink(),
        lambda folder: (folder.root / "a.wav").rename(folder.root / "b.wav"),
        lambda folder: (folder.root / "a.txt").write_text("shorter"),
    ],
    ids=["new", "gone", "renamed", "shorter"],
)
def test_files_that_come_and_go_change_it(folder: Folder, change: Callable[[Folder], object]) -> None:
    first = folder.scan()
    change(folder)
    assert folder.key() != first
    assert folder.scan() == folder.key() != first


def test_what_scan_stops_at_is_left_to_it(folder: Folder) -> None:
    first = folder.key()
    folder.write("two\nlines.wav", "x")
    Path(os.fsdecode(os.fsencode(folder.root) + b"/caf\xe9.wav")).write_bytes(b"")
    (folder.root / "dangling.wav").symlink_to("nowhere.wav")
    assert folder.key() == first


@pytest.mark.parametrize("text", ["", "123 456 a.wav\n", f"{'0' * 64} {'1' * 64}"])
def test_listing_that_is_none_is_not_believed(folder: Folder, text: str) -> None:
    first = folder.key()
    for path in (folder.scanned.listing, folder.scanned.touched):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert folder.key() == first


def test_rule_scan_reruns_for_content_alone(tmp_path: Path) -> None:
    """One name has braces, which Snakemake would take for a wildcard."""
    sounds = tmp_path / "sounds"
    for name in ("a.wav", "{b}.wav", "c.wav"):
        write_wav(sounds / name, noise(name, 0.05))
        (sounds / name).with_suffix(".txt").write_text(f"Noise {name}.\n")
    corpus = {"format": "audiofolder", "path": "sounds", "split": {"method": "fraction"}}
    run = {"base_model": "demo", "corpus": "mine", "steps": 1, "batch_size": 1}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"corpora": {"mine": corpus}, "runs": {"m": run}}))
    for name in ("config.yaml", "profiles", "resources"):
        (tmp_path / name).symlink_to(ROOT / name)
    facts = "results/data/mine/audio/all.csv"

    def snakemake(*more: str) -> str:
        command = ["--snakefile", ROOT / "Snakefile", "--cores", "1", "--configfile=mine.yaml", *more, facts]
        done = run_snakemake(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def dry() -> str:
        before = listing(tmp_path / "results")
        said = snakemake("-n")
        assert listing(tmp_path / "results") == before
        return said

    assert "Read all of the folder of corpus mine" in dry()
    snakemake()
    assert "Nothing to be done" in dry()
    for number, path in enumerate([*(tmp_path / "results").rglob("*"), *sounds.iterdir()]):
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    assert "Nothing to be done" in dry()
    for name, key in (("{b}.wav", "other"), ("new.wav", "new")):
        write_wav(sounds / name, noise(key, 0.05))
        os.utime(sounds / name, (1_600_000_000, 1_600_000_000))  # older than the outputs of rule scan
        (sounds / name).with_suffix(".txt").write_text("Noise.\n")
        assert "Params have changed" in dry()
        assert "Params have changed" in snakemake()
        assert "Nothing to be done" in dry()
    for path in sounds.glob("new.*"):
        path.unlink()
    assert "Params have changed" in dry()
    # The digests match the files.
    checked = subprocess.run(
        ["sha256sum", "-c", tmp_path / "results/data/mine/audio/all.sha256"], cwd=sounds, capture_output=True
    )
    assert checked.returncode == 1 and b"a.wav: OK" in checked.stdout
