"""How soon the page to listen on opens, in Chromium, at the size of Clotho's evaluation split.

    uv run python benchmarks/page.py --clips 1045 --runs 4

The results of the default run have to be there: its sounds, spectrograms and figures are repeated, as files of their
own (hard links), under as many clips and runs as are asked for.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import pandas as pd
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from sao.base.files import link_or_copy, read_json  # noqa: E402
from sao.pages.samples import Trained, corpus_entry, render_page  # noqa: E402

SAMPLES = ROOT / "results/samples"
TIMES = "[performance.timing.domContentLoadedEventEnd, performance.timing.loadEventEnd].map(t => t - performance.timing.navigationStart)"


def enlarge(folder: Path, clips: int, runs: int) -> Path:
    """A page of `clips` clips by `runs` runs beside the base model and the recordings."""
    samples = pd.read_csv(SAMPLES / "samples.csv", keep_default_na=False)
    summary = read_json(ROOT / "results/evaluation/summary.json")
    training = read_json(ROOT / "results/checkpoints/demo/training.json")
    names = ["base", *(f"run-{number}" for number in range(runs))]
    told = {name: summary["runs"]["base" if name == "base" else "demo"] for name in names}
    known = {name: {} for name in names}
    rows = []
    for name in names:
        source = "base" if name == "base" else "demo"
        of_source = samples[(samples.run == source) & (samples["take"] == 1)].to_dict("records")
        for number in range(clips):
            row = of_source[number % len(of_source)]
            clip = f"{row['clip_id']}-{number}"
            known[name][clip] = told[name]["clips"][row["clip_id"]]
            reference = Path(row["reference"])
            link_or_copy(SAMPLES / source / row["file"], folder / name / f"{clip}.wav")
            link_or_copy(
                SAMPLES / f"spectrograms/{source}/{row['clip_id']}.webp", folder / f"spectrograms/{name}/{clip}.webp"
            )
            if name == "base":
                link_or_copy(ROOT / reference, folder / "reference" / f"{clip}{reference.suffix}")
                link_or_copy(
                    SAMPLES / f"spectrograms/reference/{row['clip_id']}.webp",
                    folder / f"spectrograms/reference/{clip}.webp",
                )
            rows.append(
                row | {"clip_id": clip, "run": name, "file": f"{clip}.wav", "prompt": f"{row['prompt']} {number}"}
            )
    summary["verdicts"] = dict.fromkeys(names[1:], summary["verdicts"]["demo"])
    summary["runs"] = {name: told[name] | {"clips": known[name]} for name in names}
    pictures = [{"file": "loss.svg", "alt": "losses", "caption": "losses"}]
    link_or_copy(SAMPLES / "curves/demo-loss.svg", folder / "loss.svg")
    trained = {name: Trained(training, pictures) for name in names[1:]}
    corpus = corpus_entry(read_json(ROOT / "results/data/demo/validation.json"), [], "corpus.html")
    page = folder / "index.html"
    rendering = {name: {} for name in trained}
    page.write_text(render_page(pd.DataFrame(rows), summary, trained, rendering, [corpus], "1"), encoding="utf-8")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1045)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT) as folder, sync_playwright() as playwright:
        page_file = enlarge(Path(folder), args.clips, args.runs)
        found = []
        for _ in range(args.rounds):
            browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
            page = browser.new_page()
            requests: list[str] = []
            page.on("request", lambda request, found=requests: found.append(request.url))
            page.goto(page_file.as_uri(), wait_until="load")
            loaded = len(requests)
            ready, load = page.evaluate(TIMES)
            sort = page.evaluate(
                """() => { const start = performance.now(), sort = document.getElementById("sort");
                sort.value = "prompt"; sort.dispatchEvent(new Event("input")); document.body.offsetHeight;
                return performance.now() - start; }"""
            )
            found.append((ready, load, sort, loaded))
            browser.close()
        ready, load, sort, loaded = (statistics.median(column) for column in zip(*found, strict=True))
        size = page_file.stat().st_size / 1e6
        print(f"{args.clips} clips x {args.runs} runs, {size:.1f} MB of HTML: ready after {ready:.0f} ms, loaded after")
        print(f"{load:.0f} ms with {loaded:.0f} requests; sorting takes {sort:.0f} ms (medians of {args.rounds})")


if __name__ == "__main__":
    main()
