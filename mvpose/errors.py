"""Errors reported to users. A message states what is wrong, where, and what to do next."""

import logging
import re
import traceback
from enum import StrEnum

# A password is often not percent-encoded, and S3's secret keys contain slashes, so everything after `user:` up to the
# `@` is removed, unless it is a port. Lengths are bounded, so any message is searched in linear time.
_USER_INFO = re.compile(
    r"(?<=://)(?:[^\s/?#@'\"]{0,512}@(?:[^\s/?#@'\"]{0,512}@)*"
    r"|[^\s/?#@:'\"]{1,256}:(?!\d{1,5}(?![^\s/?#'\"]))[^\s@'\"]{0,512}@)"
)
_WORD = re.compile(r"[^\s'\"]+")


def redacted(text: str) -> str:
    """The text without user info and queries in its URIs; `s3://key:secret@bucket/a` becomes `s3://bucket/a`."""
    if "://" not in text:
        return text
    return _WORD.sub(_without_query, _USER_INFO.sub("", text))


def _without_query(word: re.Match[str]) -> str:
    """Remove queries except from S3 keys, which may contain a question mark. An https query may hold a signed token."""
    scheme, separator, rest = word[0].partition("://")
    if not separator or scheme.endswith(("s3", "file")):
        return word[0]
    return f"{scheme}://{rest.partition('?')[0]}"


def redacted_traceback(error: BaseException) -> str:
    """The traceback of an error with those of its causes, without credentials in locations."""
    return redacted("".join(traceback.format_exception(error)))


def set_debugging(on: bool) -> None:
    """Log everything of mvpose in this process to stderr, and what others think is of interest; or only warnings."""
    if on:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("mvpose").setLevel(logging.DEBUG if on else logging.NOTSET)


def is_debugging() -> bool:
    """Whether `--debug` was given, or a program around mvpose logs at that level."""
    return logging.getLogger("mvpose").isEnabledFor(logging.DEBUG)


class FailureReason(StrEnum):
    """Why a clip has no result."""

    CONFIG = "config"
    CALIBRATION = "calibration"
    VIDEO_UNREADABLE = "video_unreadable"
    VIDEO_TOO_SHORT = "video_too_short"
    NO_PERSON = "no_person"
    TOO_FEW_VIEWS = "too_few_views"
    WEIGHTS = "weights"
    STORAGE = "storage"
    WORKER_DIED = "worker_died"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    BAD_DATA = "bad_data"
    EXCEPTION = "exception"


class MvposeError(Exception):
    """Base of all errors that a user can fix or that make one clip fail; any other exception is a bug.

    Credentials in the URIs of its message are removed.
    """

    reason = FailureReason.CONFIG

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))

    def __str__(self) -> str:
        """The message, printed and stored; bytes of file names that are not UTF-8 are escaped."""
        return super().__str__().encode(errors="backslashreplace").decode()


class ConfigError(MvposeError):
    """A setting is unknown, out of range, or contradicts another."""


class CalibrationError(MvposeError):
    """A calibration cannot be read, is implausible, or does not fit the footage."""

    reason = FailureReason.CALIBRATION


class VideoError(MvposeError):
    """A video or image folder cannot be opened or decoded."""

    reason = FailureReason.VIDEO_UNREADABLE


class VideoTooShortError(VideoError):
    """A video ends before the frame that its container states."""

    reason = FailureReason.VIDEO_TOO_SHORT


class NoPersonError(MvposeError):
    """No person was seen by enough cameras."""

    reason = FailureReason.NO_PERSON


class TooFewViewsError(MvposeError):
    """Fewer than two cameras have footage."""

    reason = FailureReason.TOO_FEW_VIEWS


class WeightsError(MvposeError):
    """Model weights are missing, cannot be downloaded, or do not match their card's digest."""

    reason = FailureReason.WEIGHTS


class ClipTimeoutError(MvposeError):
    """A clip exceeded its time limit, usually because a decoder or the storage hangs."""

    reason = FailureReason.TIMEOUT


class StageError(MvposeError):
    """A stage cannot be created, or raises the same error on every clip: the stage is at fault, not the clips."""

    reason = FailureReason.EXCEPTION


class ResultsError(MvposeError):
    """An output folder cannot be written, or belongs to a run with other settings."""

    reason = FailureReason.STORAGE
