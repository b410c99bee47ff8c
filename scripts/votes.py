"""Count the votes of blind tests, which the page of samples saved, for each two models."""

from __future__ import annotations

import argparse
from pathlib import Path

from sao.base.command import log, parse, run

import pandas as pd
from sao.base.files import sha256, write_json
from sao.base.tables import write_table
from sao.base.takes import clip_and_take
from sao.config.settings import VotesSettings, add_settings
from sao.evaluation.votes import Heard, Pair, Tally, Vote, count, latest, read_votes, sentence
from sao.rendering.table import read_renders


class Sounds:
    """The rendered sounds of all models. A file is hashed only if a vote is about it."""

    def __init__(self, names: list[str], tables: list[Path], folders: list[Path]) -> None:
        self.paths: dict[tuple[str, str], Path] = {}
        self.splits: dict[str, str] = {}  # of each prompt, by its id
        self.hashes: dict[Path, str] = {}
        for name, table, folder in zip(names, tables, folders, strict=True):
            for row in read_renders(table, folder).itertuples():
                self.paths[name, str(row.clip_id)] = Path(str(row.sound))
                self.splits[clip_and_take(str(row.clip_id))[0]] = str(row.split)

    def is_there(self, sound: str, heard: Heard) -> bool:
        """Whether a model's render of this id is still the one that was heard."""
        path = self.paths.get((heard.run, sound))
        if path is None:
            return False
        if path not in self.hashes:
            self.hashes[path] = sha256(path)
        return self.hashes[path] == heard.sha256

    def has(self, vote: Vote) -> bool:
        return self.is_there(vote.sound, vote.a) and self.is_there(vote.sound, vote.b)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--votes", type=Path, required=True, nargs="+", help="files that the page saved")
    parser.add_argument("--run", required=True, nargs="+", help="names of the base models, runs and legs")
    parser.add_argument("--table", type=Path, required=True, nargs="+", help="tables of the renders, in that order")
    parser.add_argument("--render", type=Path, required=True, nargs="+", help="folders of the renders, in that order")
    add_settings(parser, VotesSettings)
    parser.add_argument("--output", type=Path, required=True, help="JSON")
    parser.add_argument("--summary", type=Path, required=True, help="CSV, one row for each split and two models")
    args = parse(parser)

    votes = latest(vote for path in args.votes for vote in read_votes(path))
    sounds = Sounds(args.run, args.table, args.render)
    kept = [vote for vote in votes if sounds.has(vote)]
    gone = [vote for vote in votes if vote not in kept]
    if gone:
        log.warning(
            "warning: %d of %d votes are left out, because their sounds are no longer there (%s of %s and %s, …)",
            *(len(gone), len(votes), gone[0].sound, gone[0].a.run, gone[0].b.run),
        )
    level = args.settings["level"]
    pairs = count(kept, sounds.splits, args.run, level)
    write_json(args.output, Tally(level=level, left_out=len(gone), pairs=pairs))
    write_table(args.summary, pd.DataFrame(pairs, columns=list(Pair.__annotations__)))
    for pair in pairs:
        log.info("%s", sentence(pair))
    log.info("%d votes of %d files: %s", len(kept), len(args.votes), args.summary)


if __name__ == "__main__":
    run(main)
