"""The cache folder, by one rule for all that is cached."""

import os
from pathlib import Path

import pooch


def cache_folder() -> Path:
    """FTJAX_CACHE, else the user's cache folder of the platform.

    That is ~/.cache/ftjax on Linux, or $XDG_CACHE_HOME/ftjax. All in it can be made or
    fetched again: `programs` compiled by XLA, `activations` of the frozen part, decoded
    `images`, `index` of the data sets of TFDS, and `weights` as they were published.
    """
    return Path(os.environ.get("FTJAX_CACHE") or pooch.os_cache("ftjax")).expanduser()
