"""What can go wrong for a user. A message says what was wrong, where, and what to do next."""

from enum import StrEnum

from mvpose.redaction import redacted


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
    EXCEPTION = "exception"


class MvposeError(Exception):
    """Base of every error that a user can mend or that makes one clip fail; anything else is a defect.

    Credentials in the URIs of its message are left out of it.
    """

    reason = FailureReason.CONFIG

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))

    def __str__(self) -> str:
        """The message, in which bytes of file names that are not UTF-8 are escaped: it is printed and stored."""
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
    """A video ends before the frame that its container promised."""

    reason = FailureReason.VIDEO_TOO_SHORT


class NoPersonError(MvposeError):
    """No person was seen by enough cameras."""

    reason = FailureReason.NO_PERSON


class TooFewViewsError(MvposeError):
    """Fewer than two cameras have footage."""

    reason = FailureReason.TOO_FEW_VIEWS


class WeightsError(MvposeError):
    """Model weights are missing, cannot be fetched, or do not have the digest their card states."""

    reason = FailureReason.WEIGHTS


class ClipTimeoutError(MvposeError):
    """A clip takes longer than it may: a decoder or a storage that hangs."""

    reason = FailureReason.TIMEOUT


class StageError(MvposeError):
    """A stage cannot be made, or raises the same on every clip: the fault is its own, not that of the clips."""

    reason = FailureReason.EXCEPTION


class ResultsError(MvposeError):
    """An output folder cannot be written, or belongs to a run with other settings."""

    reason = FailureReason.STORAGE
