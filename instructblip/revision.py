"""Which code this is."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path


@cache
def revision() -> str:
    """The commit of the code, with a mark when it was changed since; `unknown` outside a git checkout."""
    root = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
