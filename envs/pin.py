"""Write the versions of uv.lock into the pip sections of envs/*.yaml: uv run python envs/pin.py."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.markers import Marker

HERE = Path(__file__).resolve().parent
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux"}


def main() -> None:
    versions = {}
    for package in tomllib.loads((HERE.parent / "uv.lock").read_text(encoding="utf-8"))["package"]:
        markers = package.get("resolution-markers", [])
        if not markers or any(Marker(marker).evaluate(PYTHON) for marker in markers):
            versions[package["name"]] = package.get("version", "")
    files = [*((path, r"(?<=      - )([\w.-]+)((?:[<>=].*)?$)") for path in HERE.glob("*.yaml"))]
    files += [(path, r"([\w.-]+)==()[\w.]+") for path in HERE.glob("*.sh")]
    for path, entry in files:
        text = path.read_text(encoding="utf-8")
        pinned = re.sub(
            entry, lambda m: f"{m[1]}=={versions[re.sub(r'[-_.]+', '-', m[1]).lower()]}", text, flags=re.MULTILINE
        )
        path.write_text(pinned, encoding="utf-8")


if __name__ == "__main__":
    main()
