"""One file says what is in a user's folder: it changes with content, not with time stamps."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, noise, write_wav
from sao.plan.listing import update_listing

NAMES = ("a.wav", "a.txt", "sub/metadata.csv", "sub/{b}.wav", "{c}/d e.wav")


class Folder:
    """A folder, its list, and what the last scan saw."""

    def __init__(self, path: Path) -> None:
        self.root, self.listing, self.digests = path / "sounds", path / "list/all.txt", path / "all.sha256"
        for name in NAMES:
            self.write(name, name)

    def write(self, name: str, key: str) -> None:
        write_wav(self.root / name, noise(key, 0.01))

    def scan(self) -> None:
        """The digests as `sha256sum` writes them."""
        with self.digests.open("w") as handle:
            subprocess.run(["sha256sum", *NAMES], cwd=self.root, stdout=handle, check=True)

    def update(self) -> str:
        update_listing(self.listing, self.root, [], self.digests)
        return self.listing.read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_lists_what_matters_and_is_left_alone_where_nothing_changed(folder: Folder) -> None:
    for name in ("e.png", ".f.wav", ".hidden/g.wav"):
        folder.write(name, name)
    first = folder.update()
    assert [line.split(" ", 2)[2] for line in first.splitlines()] == sorted(NAMES)
    stamp = folder.listing.stat().st_mtime_ns
    assert folder.update() == first and folder.listing.stat().st_mtime_ns == stamp


def test_touch_changes_nothing_once_scanned(folder: Folder) -> None:
    first = folder.update()
    folder.scan()
    written = folder.listing.stat().st_mtime_ns
    for name in NAMES:
        os.utime(folder.root / name, (1_900_000_000, 1_900_000_000))
    assert folder.update() == first
    assert folder.listing.stat().st_mtime_ns == written
    # What is known by its stamp is not read again.
    seen = folder.listing.with_suffix(".seen").read_text()
    folder.digests.unlink()
    assert folder.update() == first and folder.listing.with_suffix(".seen").read_text() == seen


@pytest.mark.parametrize("name", ["a.wav", "a.txt", "sub/{b}.wav"])
def test_new_content_of_the_same_size_changes_its_line(folder: Folder, name: str) -> None:
    first = folder.update().splitlines()
    folder.scan()
    folder.write(name, "other")
    os.utime(folder.root / name, (1_900_000_000, 1_900_000_000))
    changed = [old.split(" ", 2)[2] for old, new in zip(first, folder.update().splitlines(), strict=True) if old != new]
    assert changed == [name]


def test_files_that_come_and_go_change_it(folder: Folder) -> None:
    first = folder.update()
    folder.scan()
    folder.write("new.wav", "new")
    assert len(folder.update().splitlines()) == len(NAMES) + 1
    (folder.root / "new.wav").unlink()
    assert folder.update() == first
    (folder.root / "a.wav").unlink()
    assert len(folder.update().splitlines()) == len(NAMES) - 1


def test_what_scan_stops_at_is_left_to_it(folder: Folder) -> None:
    first = folder.update()
    folder.write("two\nlines.wav", "x")
    Path(os.fsdecode(os.fsencode(folder.root) + b"/caf\xe9.wav")).write_bytes(b"")
    (folder.root / "dangling.wav").symlink_to("nowhere.wav")
    assert folder.update() == first


def test_rule_scan_reruns_for_content_alone(tmp_path: Path) -> None:
    """A name with braces, which Snakemake would take for a wildcard, included."""
    sounds = tmp_path / "sounds"
    for name in ("a.wav", "{b}.wav", "c.wav"):
        write_wav(sounds / name, noise(name, 0.05))
        (sounds / name).with_suffix(".txt").write_text(f"Noise {name}.\n")
    corpus = {"format": "audiofolder", "path": "sounds", "split": {"method": "fraction"}}
    run = {"base_model": "demo", "corpus": "mine", "steps": 1, "batch_size": 1}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"corpora": {"mine": corpus}, "runs": {"demo": None, "m": run}}))
    for name in ("config.yaml", "profiles", "resources"):
        (tmp_path / name).symlink_to(ROOT / name)
    facts = "results/data/mine/audio/all.csv"

    def snakemake(*more: str) -> str:
        command = [
            "snakemake",
            "--snakefile",
            ROOT / "Snakefile",
            "--cores",
            "1",
            "--configfile=mine.yaml",
            *more,
            facts,
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    snakemake()
    assert "Nothing to be done" in snakemake("-n")
    for number, path in enumerate([*(tmp_path / "results").rglob("*"), *sounds.iterdir()]):
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    assert "Nothing to be done" in snakemake("-n")
    for name, key in (("{b}.wav", "other"), ("new.wav", "new")):
        write_wav(sounds / name, noise(key, 0.05))
        os.utime(sounds / name, (1_600_000_000, 1_600_000_000))  # older than what was made of it
        (sounds / name).with_suffix(".txt").write_text("Noise.\n")
        assert "Updated input files" in snakemake()
        assert "Nothing to be done" in snakemake("-n")
    for path in sounds.glob("new.*"):
        path.unlink()
    assert "Updated input files" in snakemake("-n")
    # The digests are those of the files.
    checked = subprocess.run(
        ["sha256sum", "-c", tmp_path / "results/data/mine/audio/all.sha256"], cwd=sounds, capture_output=True
    )
    assert checked.returncode == 1 and b"a.wav: OK" in checked.stdout
