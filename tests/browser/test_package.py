"""The package of npm: its files, its types, and its use in Node."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import tickertape
from support.command import hub_program
from support.npm import installed
from support.servers import Program
from tickertape.client import Publisher

ROOT = Path(__file__).parents[2]
TYPES = (ROOT / "js" / "tickertape.d.ts").read_text("utf-8")
REFERENCE = (ROOT / "docs" / "reference" / "browser.md").read_text("utf-8")


def pack(folder: Path) -> Path:
    """Pack the package, and return the folder with its contents."""
    if shutil.which("npm") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("npm is not on the path")
        pytest.skip("npm is not on the path")
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder)]
    subprocess.run(command, cwd=ROOT / "js", check=True, capture_output=True, timeout=60)
    [archive] = folder.glob("*.tgz")
    shutil.unpack_archive(archive, folder)
    return folder / "package"


def test_contents(tmp_path: Path) -> None:
    package = pack(tmp_path)
    names = sorted(path.name for path in package.iterdir())
    assert names == ["LICENSE", "README.md", "package.json", "tickertape.d.ts", "tickertape.js"]
    source = Path(tickertape.__file__).parent / "browser" / "tickertape.js"
    assert (package / "tickertape.js").read_bytes() == source.read_bytes()
    release = re.match(r"\d+\.\d+\.\d+", tickertape.__version__)
    assert release is not None
    assert json.loads((package / "package.json").read_text("utf-8"))["version"] == release[0]


def test_small_form(pytestconfig: pytest.Config) -> None:
    """Pages get the module as ``make js`` builds it."""
    script = json.loads((ROOT / "js" / "package.json").read_text("utf-8"))["scripts"]["small"]
    _, _, compiler, *arguments = shlex.split(script)
    folder = installed(pytestconfig) / "node_modules" / "esbuild"
    assert compiler == f"esbuild@{json.loads((folder / 'package.json').read_text('utf-8'))['version']}"
    arguments = [each for each in arguments if not each.startswith(("--outfile=", "--allow-overwrite"))]
    command = ["node", str(folder / "bin" / "esbuild"), *arguments]
    built = subprocess.run(command, cwd=ROOT / "js", check=True, capture_output=True, timeout=60).stdout
    small = Path(tickertape.__file__).parent / "browser" / "tickertape.min.js"
    assert small.read_bytes() == built, "run make js"


def test_reference() -> None:
    """The reference and the types have the same options and properties."""
    options = re.findall(r"^  (\w+)\?:", TYPES.partition("interface StreamErrorEvent")[0], re.MULTILINE)
    table = REFERENCE.partition("| option |")[2].partition("\n\n")[0]
    for name in options:
        assert f"`{name}`" in table, name
    for name in re.findall(r"^  readonly (\w+): (?:string|number|EventStreamState)", TYPES, re.MULTILINE):
        assert f"`{name}`" in REFERENCE, name


USE = """
import { EventStream } from "../js/tickertape.js";

const events = new EventStream(new URL("https://example.org/events"), {
  shared: "ann",
  headers: async () => ({ Authorization: "Bearer x" }),
  body: () => new URLSearchParams({ q: "x" }),
  every: ({ type, data }) => console.log(type, data.length),
});
events.addEventListener("order", (event) => console.log(JSON.parse(event.data), event.lastEventId.length));
events.addEventListener("gap", ({ detail }) => console.log(detail.after.length));
events.addEventListener("error", ({ reason, status, problem }) => console.log(reason.length, status, problem?.detail));
events.addEventListener("topics", ({ detail }) => console.log(detail.topics.length));
events.subscribe(["a", "b"], { last: 3 }).then(() => events.unsubscribe("a"));
events.onmessage = (event) => console.log(event.data.length);
events.addEventListener("topic-end", ({ detail }) => console.log(detail.topic.length, detail.reason.length));
events.onerror = ({ reason, status }) => console.log(reason?.length, status);
const drop: EventSource = events;
console.log(drop.url, events.state === "waiting", EventStream.CLOSED);
// @ts-expect-error: there is no such option
new EventStream("/", { share: true });
// @ts-expect-error: the state is read only
events.state = "open";
"""


def test_types(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """The types accept the documented use, and refuse mistakes."""
    compiler = installed(pytestconfig) / "node_modules" / "typescript" / "bin" / "tsc"
    (tmp_path / "js").mkdir()
    (tmp_path / "use").mkdir()
    (tmp_path / "js" / "tickertape.d.ts").write_text(TYPES)
    (tmp_path / "use" / "use.ts").write_text(USE)
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]
    command = ["node", str(compiler), *options, "use/use.ts"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


async def test_in_node(tmp_path: Path) -> None:
    """Without a page there is no storage and no tab, and all else works."""
    package = pack(tmp_path)
    with hub_program() as hub:
        (tmp_path / "read.mjs").write_text(
            f"import {{ EventStream }} from {json.dumps(str(package / 'tickertape.js'))};\n"
            f"const url = {json.dumps(hub.url + '/events?topic=a')};\n"
            "const events = new EventStream(url, { shared: true, persist: true });\n"
            "events.onopen = () => console.log('open');\n"
            "events.onmessage = (event) => { console.log(event.data, event.lastEventId); events.close(); };\n"
        )
        program = Program(["node", str(tmp_path / "read.mjs")])
        try:
            await program.says("open")
            async with Publisher(hub.url) as publisher:
                cursor = await publisher.publish("a", "x")
            await program.says(f"x {cursor}")
            assert program.process.wait(10) == 0
        finally:
            program.close()
