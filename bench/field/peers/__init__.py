"""The servers of the field, and how each is installed and started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...pages import HOME, ROOT

HERE: Final = Path(__file__).parent
BETTER: Final = HOME / "node" / "node_modules" / "better-sse"

SSE: Final = "SSE"
WEBSOCKET: Final = "WebSocket"

PYTHON_PACKAGES: Final = (
    "uvicorn[standard]>=0.30",
    "starlette>=0.40",
    "sse-starlette>=2",
    "fastapi>=0.135",
    "litestar>=2",
    "django-eventstream>=5",
    "aiohttp>=3.9",
    "aiohttp-sse>=2",
    "broadcaster>=0.3",
    "websockets>=13",
)


class Absent(Exception):
    """A peer cannot be installed here; the text is the reason."""


@dataclass(frozen=True)
class Peer:
    """A server of the field.

    Attributes:
        name: its name in the tables.
        about: what it is.
        command: returns the command line for a port, and installs what it needs.
        kind: :data:`SSE` or :data:`WEBSOCKET`.
        path: the path of the stream.
        publish: the path to publish at.
        resumes: it sends what a client missed, by ``Last-Event-ID``.
        package: the Python package whose version is shown.
        version_command: otherwise, a command that prints a version.
        control: added to the port, where events are published.
    """

    name: str
    about: str
    command: Callable[[int], Sequence[str]]
    kind: str = SSE
    path: str = "/events"
    publish: str = "/publish"
    resumes: bool = False
    package: str = ""
    version_command: tuple[str, ...] = ()
    control: int = 0

    def request(self, last_event_id: str = "") -> bytes:
        """Return the request of a subscriber."""
        lines = [f"GET {self.path} HTTP/1.1", "host: localhost"]
        if self.kind == WEBSOCKET:
            lines += ["connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13"]
            lines += ["sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="]
        else:
            lines += ["accept: text/event-stream"]
        if last_event_id:
            lines += [f"last-event-id: {last_event_id}"]
        return "\r\n".join([*lines, "", ""]).encode()

    def version(self) -> str:
        """Return the version of its package; empty if that is unknown."""
        command = self.version_command
        if self.package:
            command = python(), "-c", f"import importlib.metadata as m; print(m.version({self.package!r}))"
        if not command:
            return ""
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        number = re.search(r"\d+(\.\d+)+", found.stdout + found.stderr)
        return number[0] if number else ""


def run(command: Sequence[str], reason: str, cwd: Path | None = None) -> None:
    """Run a command that installs something.

    Raises:
        Absent: it failed.
    """
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"{reason}: {error}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Absent(f"{reason}: {lines[-1] if lines else f'status {done.returncode}'}")


def python() -> str:
    """Return the interpreter of the field's own environment, which is made on first use."""
    home = HOME / "venv"
    program = home / "bin" / "python"
    stamp = home / "installed"
    wanted = "\n".join(PYTHON_PACKAGES)
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(home, with_pip=True, clear=True)
        pip = [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for package in PYTHON_PACKAGES:  # one that is missing keeps no other away
            try:
                run([*pip, package], f"pip install {package}")
            except Absent as error:
                print(f"  {error}", file=sys.stderr)
        stamp.write_text(wanted)
    return str(program)


def application(name: str, module: str = "") -> Callable[[int], Sequence[str]]:
    """Return the command of one of the Python programs."""

    def command(port: int) -> Sequence[str]:
        needed = module or "uvicorn"
        code = f"import importlib.util as u; raise SystemExit(u.find_spec({needed!r}) is None)"
        if subprocess.run([python(), "-c", code], capture_output=True, check=False).returncode:
            raise Absent(f"the Python package {needed} is not installed")
        return [python(), str(HERE / "applications.py"), name, str(port)]

    return command


def better_sse(port: int) -> Sequence[str]:
    node, home = installed("node", "nodejs"), HOME / "node"
    if not BETTER.is_dir():
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", home)
        run([installed("npm", "npm"), "install", "--no-audit", "--no-fund", "--silent"], "npm install better-sse", home)
    shutil.copy(HERE / "better.mjs", home)  # modules are looked up from the place of the program
    return [node, str(home / "better.mjs"), str(port)]


def go(port: int) -> Sequence[str]:
    source, program = HERE / "broadcast.go", HOME / "go" / "broadcast"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        run([installed("go", "golang-go"), "build", "-o", str(program), str(source)], "go build")
    return [str(program), str(port)]


def nchan(port: int) -> Sequence[str]:
    program, home = installed("nginx", "libnginx-mod-nchan"), HOME / "nchan"
    module = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
    if not module.exists() and shutil.which("apt-get"):
        run(["apt-get", "install", "-y", "-q", "libnginx-mod-nchan"], "apt-get install libnginx-mod-nchan")
    if not module.exists():
        raise Absent("nginx has no module nchan, of Debian's package libnginx-mod-nchan")
    home.mkdir(parents=True, exist_ok=True)
    text = (HERE / "nchan.conf").read_text().replace("DIRECTORY", str(home)).replace("PORT", str(port))
    text = text.replace("modules/ngx", f"{module.parent}/ngx")
    (home / "nginx.conf").write_text(text)
    return [program, "-p", str(home), "-e", str(home / "error.log"), "-c", str(home / "nginx.conf")]


OURS: Final = sys.executable, "-m", "tickertape", "--version"

PEERS: Final = (
    Peer(
        "bare loop",
        "a loop of `os.write` over all sockets, in Python; does nothing else",
        lambda port: [sys.executable, str(HERE / "bare.py"), str(port)],
        resumes=True,
    ),
    Peer(
        "tickertape",
        "a hub in a Starlette application under uvicorn, log in memory",
        application("tickertape"),
        resumes=True,
        version_command=OURS,
    ),
    Peer(
        "tickertape serve",
        "the hub as a program, log in memory",
        lambda port: [sys.executable, "-m", "tickertape", "serve", "--port", f"{port}", "--broker", "memory://"],
        path="/events?topic=prices",
        publish="/events/prices",
        resumes=True,
        version_command=OURS,
    ),
    Peer(
        "Starlette",
        "`StreamingResponse`, a queue for each client, under uvicorn",
        application("starlette", "starlette"),
        package="starlette",
    ),
    Peer(
        "sse-starlette",
        "`EventSourceResponse`, a queue for each client, under uvicorn",
        application("sse-starlette", "sse_starlette"),
        package="sse-starlette",
    ),
    Peer(
        "FastAPI",
        "`fastapi.sse`, a queue for each client, under uvicorn",
        application("fastapi", "fastapi.sse"),
        package="fastapi",
    ),
    Peer(
        "Litestar",
        "channels in memory, `ServerSentEvent`, under uvicorn",
        application("litestar", "litestar.channels"),
        package="litestar",
    ),
    Peer(
        "broadcaster",
        "`memory://`, Starlette's `StreamingResponse`, under uvicorn",
        application("broadcaster", "broadcaster"),
        package="broadcaster",
    ),
    Peer(
        "django-eventstream",
        "in one process, without storage, under uvicorn",
        application("django-eventstream", "django_eventstream"),
        package="django-eventstream",
    ),
    Peer(
        "aiohttp-sse",
        "a queue for each client, aiohttp's own server",
        application("aiohttp-sse", "aiohttp_sse"),
        package="aiohttp-sse",
    ),
    Peer(
        "better-sse",
        "a channel, Node's own server",
        better_sse,
        version_command=("node", "-p", "require(process.argv[1]).version", str(BETTER / "package.json")),
    ),
    Peer(
        "Go", "the standard library: a goroutine and a channel for each client", go, version_command=("go", "version")
    ),
    Peer(
        "nchan",
        "Debian's nginx with nchan: a channel with a buffer of 1,000 messages",
        nchan,
        resumes=True,
        version_command=("dpkg-query", "--show", "libnginx-mod-nchan"),
    ),
    Peer(
        "uvicorn WebSocket",
        "WebSocket: Starlette, a queue for each client, under uvicorn",
        application("uvicorn-websocket", "websockets"),
        kind=WEBSOCKET,
        path="/stream",
        package="uvicorn",
    ),
    Peer(
        "websockets",
        "WebSocket: `broadcast()` of the library websockets",
        application("websockets", "websockets"),
        kind=WEBSOCKET,
        package="websockets",
        control=1,
    ),
)


def environment() -> dict[str, str]:
    """Return the environment variables of the programs."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}


def installed(program: str, package: str) -> str:
    """Return a program of Debian; install its package if it is missing.

    Raises:
        Absent: it cannot be installed.
    """
    found = shutil.which(program)
    if found is None and shutil.which("apt-get"):
        run(["apt-get", "install", "-y", "-q", package], f"apt-get install {package}")
        found = shutil.which(program)
    if found is None:
        raise Absent(f"{program} is missing, of Debian's package {package}")
    return found
