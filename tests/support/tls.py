"""A self-signed certificate, for servers on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["certify"]


def certify(folder: Path) -> tuple[str, str]:
    """Return the paths of a certificate for 127.0.0.1 and of its key."""
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
        f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )
    return certificate, key
