"""Names from an archive as parts of locations: letters, digits, dot, dash and underscore, and never another name's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

MAX_LENGTH = 100


def safe_path(names: Sequence[str]) -> str:
    """Folder names as one relative path. A name that has to be changed carries a digest, so that no two become one."""
    return "/".join(_safe(n) for n in names)


def _safe(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[:MAX_LENGTH]
    if plain == name and plain:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}".lstrip("-")
