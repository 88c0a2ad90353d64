"""The one error tree, and the one table from it to HTTP status, exit code and how it is counted.

    OndolError
    ├── InvalidInput            what came breaks a rule of ours
    │   ├── TextTooLong         a text exceeds the model's or the server's limit
    │   ├── TooManyItems        a list exceeds its limit
    │   ├── PayloadTooLarge     a body or file exceeds its limit in bytes
    │   └── SettingsError       an unknown or malformed setting
    ├── NotFound                a named collection, document, model, … does not exist
    ├── Conflict                it exists already, or in another shape
    ├── Unauthorized            the API key is missing or wrong
    ├── Refused                 not now: carries ``retry_after`` seconds
    │   ├── Overloaded          a queue is full
    │   └── NotReady            starting, restarting or draining
    ├── DeadlineExceeded        a named wait ran past its limit
    ├── Cancelled               the caller left
    ├── ReadError               a document could not be read (``code`` says why)
    ├── ModelError              weights could not be had or used
    │   ├── DownloadFailed      a source broke off, or no source had it
    │   ├── HashMismatch        the bytes are not the ones the catalogue names
    │   └── OfflineMissing      offline, and not in the cache
    ├── BackendError            a model library failed while running
    │   ├── OutOfMemory         a batch was too large for the memory there is
    │   ├── ProbeFailed         a measuring process could not do what was asked of it
    │   └── GeneratorDied       the generator process ended in mid-request
    ├── GateFailed              a measured figure fell short of its gate
    └── StoreError              the database and its side files disagree or are damaged

Every error says what came, the rule, and the remedy: ``message`` and ``hint``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

RequestOutcome = Literal["ok", "refused", "failed", "cancelled", "deadline"]
"""How a request ended, as metrics, records and logs count it."""


class OndolError(Exception):
    """Base of all errors Ondol raises on purpose.

    ``code`` is a stable machine-readable word, ``param`` names the offending field or input,
    ``hint`` is the remedy in one sentence.
    """

    default_code: ClassVar[str] = "internal"

    def __init__(
        self, message: str, *, hint: str = "", code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code
        self.param = param


class InvalidInput(OndolError):
    default_code = "invalid_input"


class TextTooLong(InvalidInput):
    default_code = "text_too_long"


class TooManyItems(InvalidInput):
    default_code = "too_many_items"


class PayloadTooLarge(InvalidInput):
    default_code = "payload_too_large"


class SettingsError(InvalidInput):
    default_code = "invalid_setting"


class NotFound(OndolError):
    default_code = "not_found"


class Conflict(OndolError):
    default_code = "conflict"


class Unauthorized(OndolError):
    default_code = "unauthorized"


class Refused(OndolError):
    """Not now. ``retry_after`` is in seconds, from the measured drain rate where one is known."""

    default_code = "refused"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float,
        hint: str = "",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code, param=param)
        self.retry_after = retry_after


class Overloaded(Refused):
    default_code = "overloaded"


class NotReady(Refused):
    default_code = "not_ready"


class DeadlineExceeded(OndolError):
    default_code = "deadline_exceeded"


class Cancelled(OndolError):
    default_code = "cancelled"


class ReadError(OndolError):
    """A document could not be read.

    Codes: ``encrypted``, ``damaged``, ``empty``, ``image_only``, ``too_many_pages``, ``too_large``,
    ``wrong_type``, ``bad_encoding``, ``bad_record``, ``unsupported``, ``unreadable``, ``timeout``.
    """

    default_code = "unreadable"


class ModelError(OndolError):
    default_code = "model_error"


class DownloadFailed(ModelError):
    default_code = "download_failed"


class HashMismatch(ModelError):
    default_code = "hash_mismatch"


class OfflineMissing(ModelError):
    default_code = "offline_missing"


class BackendError(OndolError):
    default_code = "backend_failed"


class OutOfMemory(BackendError):
    default_code = "out_of_memory"


class ProbeFailed(BackendError):
    default_code = "probe_failed"


class GeneratorDied(BackendError):
    default_code = "generator_died"


class GateFailed(OndolError):
    default_code = "gate_failed"


class StoreError(OndolError):
    default_code = "store_failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an error leaves the process: HTTP status, OpenAI error type, CLI exit code.

    ``counted`` is how the request that it ended is counted.
    """

    status: int
    type: str
    exit_code: int
    counted: RequestOutcome = "failed"


OUTCOMES: dict[type[OndolError], Outcome] = {
    OndolError: Outcome(500, "server_error", 1),
    InvalidInput: Outcome(400, "invalid_request_error", 2),
    TextTooLong: Outcome(400, "invalid_request_error", 2),
    TooManyItems: Outcome(400, "invalid_request_error", 2),
    PayloadTooLarge: Outcome(413, "invalid_request_error", 2),
    SettingsError: Outcome(400, "invalid_request_error", 2),
    NotFound: Outcome(404, "not_found_error", 2),
    Conflict: Outcome(409, "conflict_error", 2),
    Unauthorized: Outcome(401, "authentication_error", 3),
    Refused: Outcome(503, "unavailable_error", 3, "refused"),
    Overloaded: Outcome(429, "rate_limit_error", 3, "refused"),
    NotReady: Outcome(503, "unavailable_error", 3, "refused"),
    DeadlineExceeded: Outcome(504, "timeout_error", 3, "deadline"),
    Cancelled: Outcome(499, "cancelled_error", 1, "cancelled"),
    ReadError: Outcome(422, "unprocessable_document_error", 1),
    ModelError: Outcome(500, "model_error", 1),
    DownloadFailed: Outcome(502, "model_error", 1),
    HashMismatch: Outcome(502, "model_error", 1),
    OfflineMissing: Outcome(503, "model_error", 1),
    BackendError: Outcome(500, "server_error", 1),
    OutOfMemory: Outcome(503, "unavailable_error", 1),
    ProbeFailed: Outcome(500, "server_error", 1),
    GeneratorDied: Outcome(503, "unavailable_error", 1),
    GateFailed: Outcome(500, "gate_error", 3),
    StoreError: Outcome(500, "server_error", 1),
}


def outcome_of(error: BaseException) -> Outcome:
    """Return how ``error`` leaves the process; anything unknown leaves as a plain server error."""
    for kind in type(error).__mro__:
        if kind in OUTCOMES:
            return OUTCOMES[kind]
    return OUTCOMES[OndolError]
