"""Build the distributions and check them: ``make dist``.

1. Build the sdist and the wheel twice; both builds must be equal, byte by byte.
2. ``twine check --strict``, and a wheel built from the sdist, equal to the first one.
3. For each Python that is supported and installed: install the wheel in a fresh environment, once without extras and
   once for each extra, and import the modules that it is for. A Python that is missing is named.
4. Write the software bill of materials (CycloneDX) of the wheel with all extras, twice; both must be equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
DIST: Final = ROOT / "dist"
UPLOT: Final = ROOT / "src/tickertape/demo/dashboard/web/uPlot.esm.js"

PYTHONS: Final = ("3.11", "3.12", "3.13")

BASE: Final = ("tickertape", "tickertape.runs", "tickertape.sources", "tickertape.asgi", "tickertape.hub")
"""Modules that need no extra."""

MODULES: Final = {
    "client": ("tickertape.client", "tickertape.cli"),
    "server": ("tickertape.server", "tickertape.integrations.prometheus"),
    "redis": ("tickertape.broker.redis",),
    "postgres": ("tickertape.broker.postgres",),
    "nats": ("tickertape.broker.nats",),
    "otel": ("tickertape.integrations.opentelemetry",),
    "jwt": ("tickertape.access",),
    "demo": ("tickertape.demo",),
    "all": ("tickertape.cli", "tickertape.demo", "tickertape.broker.nats"),
}
"""Modules that an extra is for. Extras for developing have none."""

DEVELOPING: Final = ("docs", "bench", "dev")


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """Run a command, and return its output; print it if it fails."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build(source: Path, into: Path, *options: str) -> dict[str, str]:
    """Build distributions; return the digests by name. The date of all files in them is that of the last commit."""
    date = run("git", "log", "-1", "--format=%ct").strip()
    run(sys.executable, "-m", "build", *options, "--outdir", into, source, SOURCE_DATE_EPOCH=date)
    return {path.name: digest(path) for path in sorted(into.iterdir())}


def check_builds(scratch: Path) -> Path:
    """Build everything, check that it is reproducible, and return the wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    first = build(ROOT, DIST)
    second = build(ROOT, scratch / "second")
    if first != second:
        sys.exit(f"two builds differ: {first} and {second}")
    wheel, sdist = next(DIST.glob("*.whl")), next(DIST.glob("*.tar.gz"))
    shutil.unpack_archive(sdist, scratch / "sdist", filter="data")
    from_sdist = build(next((scratch / "sdist").iterdir()), scratch / "third", "--wheel")
    if from_sdist[wheel.name] != first[wheel.name]:
        sys.exit("the wheel that is built from the sdist differs from the other one")
    print(run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist).strip())
    for name, value in first.items():
        print(f"{value}  {name}")
    print("two builds are equal, and the wheel from the sdist too")
    return wheel


def find_python(version: str) -> str | None:
    """Return an interpreter of this version that is on the machine: on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in filter(None, candidates):
        done = subprocess.run(
            [candidate, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=False
        )
        if done.stdout.startswith(f"{version}."):
            return candidate
    return None


def check_install(python: str, wheel: Path, extra: str | None, modules: tuple[str, ...], scratch: Path) -> None:
    """Install the wheel in a fresh environment, and import modules there, outside the repository."""
    place = Path(tempfile.mkdtemp(dir=scratch))
    run("uv", "venv", "--quiet", "--offline", "--python", python, place / "venv")
    inside = place / "venv" / "bin" / "python"
    run("uv", "pip", "install", "--quiet", "--python", inside, f"{wheel}[{extra}]" if extra else wheel)
    run(inside, "-I", "-c", f"import {', '.join(modules)}", cwd=place)
    if extra in ("client", "server", "all"):
        run(place / "venv" / "bin" / "tickertape", "--version", cwd=place)
    shutil.rmtree(place)


def complete_bill(bill: dict[str, Any], wheel: str, sha256: str) -> dict[str, Any]:
    """Return a bill of materials whose subject is the wheel, with the foreign code in it and without local paths.

    Arguments:
        bill: the bill of an environment in which the wheel is installed.
        wheel: the name of the file.
        sha256: its digest.
    """
    parts = {part["name"]: part for part in bill["components"]}
    root = parts.pop("tickertape")
    version = root["version"]
    root["purl"] = f"pkg:pypi/tickertape@{version}?file_name={wheel}"
    root["hashes"] = [{"alg": "SHA-256", "content": sha256}]
    for part in (root, *parts.values()):
        references = part.get("externalReferences", [])
        part["externalReferences"] = [found for found in references if not found["url"].startswith("file:")]
    inside = vendored()
    dependencies = [
        {**found, "dependsOn": sorted([*found.get("dependsOn", []), inside["bom-ref"]])}
        if found["ref"] == root["bom-ref"]
        else found
        for found in bill["dependencies"]
    ]
    return {
        **bill,
        "metadata": {**bill["metadata"], "component": root},
        "components": sorted([*parts.values(), inside], key=lambda part: str(part["bom-ref"])),
        "dependencies": sorted([*dependencies, {"ref": inside["bom-ref"]}], key=lambda found: str(found["ref"])),
    }


def vendored() -> dict[str, Any]:
    """Return the part of a bill for uPlot, which is in the wheel. Its file names its version."""
    found = re.search(r"\(v([\d.]+)\)", UPLOT.read_text("utf-8"))
    if found is None:
        sys.exit(f"{UPLOT} does not name its version")
    return {
        "bom-ref": f"uplot@{found[1]}",
        "type": "library",
        "name": "uplot",
        "version": found[1],
        "description": "A small, fast chart for time series; vendored for the dashboard of the demo.",
        "licenses": [{"license": {"id": "MIT", "acknowledgement": "declared"}}],
        "purl": f"pkg:npm/uplot@{found[1]}",
        "externalReferences": [{"type": "vcs", "url": "https://github.com/leeoniya/uPlot"}],
    }


def make_bill(python: str, wheel: Path, place: Path) -> str:
    """Install the wheel with all extras in a new environment, and return the bill of materials as text."""
    run("uv", "venv", "--quiet", "--offline", "--python", python, place)
    run("uv", "pip", "install", "--quiet", "--python", place / "bin" / "python", f"{wheel}[all]")
    tool = Path(sys.executable).parent / "cyclonedx-py"
    bill = json.loads(run(tool, "environment", "--output-reproducible", "--of", "JSON", place))
    return json.dumps(complete_bill(bill, wheel.name, digest(wheel)), indent=2, sort_keys=True) + "\n"


def write_bill(python: str, wheel: Path, scratch: Path) -> None:
    """Write the bill of materials: each package that the wheel with all extras installs, and the code in the wheel.

    Two bills must be equal. Bills of two days are not: each has the packages that are the newest.
    """
    target = DIST / f"{wheel.name.partition('-py3')[0]}.cdx.json"
    copy = scratch / "elsewhere" / wheel.name
    copy.parent.mkdir()
    shutil.copy(wheel, copy)
    first, second = make_bill(python, wheel, scratch / "bill"), make_bill(python, copy, scratch / "bill-again")
    if first != second:
        sys.exit("two bills of materials differ")
    target.write_text(first, "utf-8")
    print(f"{target.name}: {len(json.loads(first)['components'])} packages; two bills are equal")


def main() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    unknown = extras.keys() - MODULES.keys() - {*DEVELOPING}
    if unknown:
        sys.exit(f"state in {Path(__file__).name} what these extras are for: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        wheel = check_builds(scratch)
        checked = []
        for version in PYTHONS:
            python = find_python(version)
            if python is None:
                print(f"Python {version}: skipped, because it is not on this machine")
                continue
            check_install(python, wheel, None, BASE, scratch)
            named = sorted(extras.keys() & MODULES.keys())
            for extra in named:
                check_install(python, wheel, extra, MODULES[extra], scratch)
            print(f"Python {version}: installed alone, and with each of {', '.join(named)}")
            checked.append(python)
        if not checked:
            sys.exit("no Python that is supported is on this machine")
        write_bill(checked[0], wheel, scratch)


if __name__ == "__main__":
    main()
