"""Text without what opens doors: the user info of every URI in it, and the query of those whose query may hold a token.

The one function is applied where text leaves the process: to the message of every error of ours, to settings when they
are flattened to be printed, recorded or written, and to the address of a tracking store.
"""

from __future__ import annotations

import re

# A password is often not percent-encoded, and S3's secret keys have slashes in them: what follows `user:` is taken up
# to the `@`, unless it is a port. Lengths are bounded, so that a message of any text is searched in linear time.
_USER_INFO = re.compile(
    r"(?<=://)(?:[^\s/?#@'\"]{0,512}@(?:[^\s/?#@'\"]{0,512}@)*"
    r"|[^\s/?#@:'\"]{1,256}:(?!\d{1,5}(?![^\s/?#'\"]))[^\s@'\"]{0,512}@)"
)
_WORD = re.compile(r"[^\s'\"]+")


def redacted(text: str) -> str:
    """The text, without user info and queries in its URIs; `s3://key:secret@bucket/a` becomes `s3://bucket/a`."""
    if "://" not in text:
        return text
    return _WORD.sub(_without_query, _USER_INFO.sub("", text))


def _without_query(word: re.Match[str]) -> str:
    """An S3 key may have a question mark in it; the token of a presigned address is in the query of an https one."""
    scheme, separator, rest = word[0].partition("://")
    if not separator or scheme.endswith(("s3", "file")):
        return word[0]
    return f"{scheme}://{rest.partition('?')[0]}"
