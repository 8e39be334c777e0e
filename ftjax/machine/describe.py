"""Where and how a run was made: versions, device, commit."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("ftjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe() -> dict[str, Any]:
    """Versions, device and source of this process, as plain values."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "commit": git_commit(),
        **versions,
    }


def git_commit() -> str:
    """Commit of the source, with a mark if it was changed; empty outside a checkout."""
    folder = Path(__file__).parent
    try:
        name = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return name.stdout.strip() if name.returncode == 0 else ""
