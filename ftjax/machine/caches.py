"""The cache folder, by one rule for all that is cached."""

import os
import sys
from pathlib import Path

import jax
import pooch


def cache_folder() -> Path:
    """FTJAX_CACHE, else XDG_CACHE_HOME/ftjax, else ~/.cache/ftjax."""
    if "FTJAX_CACHE" in os.environ:
        return Path(os.environ["FTJAX_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ftjax"


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, unless JAX_COMPILATION_CACHE_DIR says where."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def default_cache_dir() -> Path:
    """Folder for what can be rebuilt.

    Returns:
        $FTJAX_CACHE, else $XDG_CACHE_HOME/ftjax, else the platform's cache folder.
    """
    if own := os.environ.get("FTJAX_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "ftjax"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ftjax"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "ftjax"
    return Path.home() / ".cache" / "ftjax"


def find_cache_dir(cache_dir: str | Path | None = None) -> Path:
    """The folder for weight files.

    Returns:
        `cache_dir`, else $FTJAX_CACHE/weights, else the user's cache folder of this
        platform (~/.cache/ftjax/weights on Linux).
    """
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    root = os.environ.get("FTJAX_CACHE") or pooch.os_cache("ftjax")
    return Path(root).expanduser() / "weights"
