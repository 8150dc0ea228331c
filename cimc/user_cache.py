"""The folder where results are kept between runs, by the platform's convention.

    Linux     $XDG_CACHE_HOME/cimc, else ~/.cache/cimc
    macOS     ~/Library/Caches/cimc
    Windows   %LOCALAPPDATA%\\cimc

Everything in it can be deleted at any time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache(part: str = "") -> Path:
    """The folder, or the part of it; it need not exist."""
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        base = os.path.join(home, "Library", "Caches")
    elif sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    return Path(base, "cimc", part)
