"""Certificates that servers of tests show, and sign themselves."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """Of a server on 127.0.0.1; for who trusts it, the certificate is the authority, too."""

    file: Path
    key: Path


def make_certificate(directory: Path, owner: str | None = None) -> Certificate:
    """Make a certificate and its key.

    Args:
        owner: the account that reads the key; None: the one that we are.
    """
    made = Certificate(directory / "server.crt", directory / "server.key")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=hpstudy-test"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(made.key), "-out", str(made.file)]
    subprocess.run([*command.split(), *names], capture_output=True, check=True)
    if owner:
        shutil.chown(made.key, owner)
    return made
