"""The documentation says what is there: commands work, names exist, the configuration page is up to date."""

from __future__ import annotations

import csv
import os
import re
import runpy
import shlex
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conda import install
from conftest import FORKS, link_checkout, run_snakemake

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "resources/demo/README.md", *ROOT.glob("docs/**/*.md")]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in PAGES)
# The first three do nothing else, with or without -n; the last needs a server: test_storage.py runs it.
NOT_DRY = {"--lint", "--unlock", "--report", "--default-storage-provider"}
CONFIGS = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("configs/*.yaml"))
COMMANDS = [shlex.split(c, comments=True) for c in re.findall(r"uv run (snakemake\b[^`\n|&]*)", TEXT + CONFIGS)]
COMMANDS = sorted({tuple(c) for c in COMMANDS if not NOT_DRY & set(c)})
RULES = {
    name: body
    for path in ROOT.glob("rules/*.smk")
    for name, body in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", path.read_text(encoding="utf-8"), re.M | re.S)
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository without results, with the example config of the README."""
    folder = link_checkout(tmp_path_factory.mktemp("checkout"))
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name, text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", TEXT, re.S):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "my_sounds").mkdir()
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=shlex.join)
def test_commands_work_as_a_dry_run(command: tuple[str, ...], checkout: Path, tmp_path: Path) -> None:
    env = {"PATH": f"{install(tmp_path)}:{os.environ['PATH']}"}  # Snakemake asks conda even then
    done = run_snakemake("-n", *command[1:], cwd=checkout, env=env)
    assert done.returncode == 0, done.stderr
    # What makes the command's target.
    makers = {
        "downloads": "base_model",
        "results/data/sounds/validation.html": "validate",
        "results/data/sounds/dataset_configs/demo": "dataset_configs",
        "results/data/esc50/validation.html": "fetch",
        "results/checkpoints/demo/step-00000300/model.safetensors": "export",
        "results/renders/demo@step-00000300": "render",
        "results/renders/demo": "render",
        "results/evaluation/summary.json": "compare",
        "results/listen/index.html": "listen_page",
        "publish": "upload",
        "exports": "convert",
        "results/exports/demo/diffusers-float16.json": "convert",
        "results/exports/demo/step-00000300/model-bfloat16.json": "convert",
        "verify": "verify",
    }
    assert next((rule for target, rule in makers.items() if target in command), "collect") in done.stdout + done.stderr


@pytest.mark.slow
def test_training_of_many_legs_is_planned(checkout: Path) -> None:
    """As many that Python's own limit of recursion would end the plan."""
    (checkout / "configs/legs.yaml").write_text("runs: {demo: {steps: 600, checkpoint_every: 1}}\n")
    target = "results/checkpoints/demo/model.safetensors"
    done = run_snakemake("-n", "--quiet", "rules", "--configfile=configs/legs.yaml", target, cwd=checkout)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r"^train +59\d$", done.stdout + done.stderr, re.M)


def test_legs_that_were_logged_offline_are_appended() -> None:
    """Each leg has a file of one run: what `wandb sync` sends without `--append` begins the run anew."""
    schema = (ROOT / "schemas/config.schema.yaml").read_text(encoding="utf-8")
    commands = re.findall(r"wandb sync[^`\n]*", TEXT + CONFIGS + schema)
    assert len(commands) >= 3 and {command.rstrip(")") for command in commands} == {"wandb sync --append --sync-all"}, (
        commands
    )


def test_commands_are_found() -> None:
    assert ("snakemake", "--cores", "all", "results/samples") in COMMANDS
    assert any("--configfile=configs/clotho.yaml" in command for command in COMMANDS)


def test_configuration_page_is_made_from_the_schema() -> None:
    page = runpy.run_path(str(ROOT / "docs/make_configuration.py"))
    assert page["PAGE"].read_text(encoding="utf-8") == page["text"](), "run: uv run python docs/make_configuration.py"


def test_page_of_cards_is_made_from_the_estimate(tmp_path: Path) -> None:
    for name in ("scripts", "benchmarks", "resources"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "docs/reference").mkdir(parents=True)
    done = FORKS[0].program(shutil.copy(ROOT / "docs/make_cards.py", tmp_path / "docs"), cwd=tmp_path).finish()
    assert done.returncode == 0, done.stderr
    made, page = (folder / "docs/reference/cards.md" for folder in (tmp_path, ROOT))
    assert made.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), "run: uv run python docs/make_cards.py"


@pytest.mark.parametrize("rule", RULES)
def test_rule_has_all_its_parts(rule: str) -> None:
    assert (ROOT / f"scripts/{rule}.py").is_file()
    assert (ROOT / f"tests/scripts/test_{rule}.py").is_file()
    assert f"$SCRIPTS/{rule}.py" in RULES[rule]
    # A benchmark is a file that a rule makes: a rule that always runs has none.
    benchmark = ["benchmark"] if re.search(r"^    output:", RULES[rule], re.M) else []
    for part in ("log", *benchmark, "conda", "message", "shell"):
        assert re.search(rf"^    {part}:", RULES[rule], re.M), part


def test_documented_rules_and_paths_exist() -> None:
    stages = re.findall(r"^## (\w+)$", (ROOT / "docs/reference/stages.md").read_text(encoding="utf-8"), re.M)
    assert sorted(stages) == sorted(RULES)
    named = {n for run in re.findall(r"\brules? ((?:`\w+`(?:, | and )?)+)", TEXT) for n in re.findall(r"`(\w+)`", run)}
    assert named <= set(RULES)
    for path in re.findall(r"`((?:scripts|configs|docs|envs|schemas|rules|resources)/[\w./-]*)`", TEXT):
        assert (ROOT / path).exists() or f"# {path}" in TEXT, path
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_demo_page_names_every_source() -> None:
    page = (ROOT / "resources/demo/README.md").read_text(encoding="utf-8")
    counted: Counter[tuple[str, str]] = Counter()
    for table in (ROOT / "resources/demo/corpus").glob("clotho_metadata_*.csv"):
        with table.open(encoding="utf-8", newline="") as handle:
            counted.update((row["sound_link"].rsplit("/", 1)[1], row["license"]) for row in csv.DictReader(handle))
    assert sum(counted.values()) == 48
    for (package, licence), number in counted.items():
        (named,) = re.findall(rf"`{package}` \(([^)]*)\)", page)
        assert licence in named and f"{number} clips" in named
