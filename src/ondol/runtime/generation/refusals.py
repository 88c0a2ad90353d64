"""What a request is told that cannot be served now: one function a reason, each with the remedy."""

from __future__ import annotations

from ondol.core.errors import NotReady, Overloaded

_UNREACHABLE_SECONDS = 60.0


def lane_full(lane: str, *, waiting: int, limit: int, retry_after: float) -> Overloaded:
    return Overloaded(
        f"{waiting} requests wait in the lane {lane}, the limit is {limit}",
        retry_after=retry_after,
        hint=f"send again after Retry-After seconds, or raise lanes.{lane}.queue",
    )


def share_used(lane: str, *, held: int, limit: int, retry_after: float) -> Overloaded:
    return Overloaded(
        f"this API key holds {held} places of the lane {lane}, its share is {limit}",
        retry_after=retry_after,
        hint="wait for your own requests, or ask for a larger share",
        code="share_used",
    )


def wait_foreseen(lane: str, *, seconds: float, limit: float, retry_after: float) -> Overloaded:
    return Overloaded(
        f"a slot is about {seconds:.0f} s away, the limit of the lane {lane} is {limit:g} s",
        retry_after=retry_after,
        hint=f"send again after Retry-After seconds, or raise lanes.{lane}.queue_seconds",
    )


def waited_out(lane: str, *, seconds: float, retry_after: float) -> Overloaded:
    return Overloaded(
        f"waited {seconds:g} s in the queue of the lane {lane}, the limit",
        retry_after=retry_after,
        hint=f"the machine is overloaded: send less at once or raise lanes.{lane}.queue_seconds",
        code="queue_deadline_exceeded",
    )


def deadline_infeasible(*, first_token: float, deadline: float, retry_after: float) -> Overloaded:
    """``first_token`` and ``deadline`` are seconds after the request's arrival."""
    return Overloaded(
        f"the first token would come about {first_token:.1f} s after the request, "
        f"it was promised within {deadline:.1f} s",
        retry_after=retry_after,
        hint="send again after Retry-After seconds, or allow a later deadline (x-ondol-deadline-ms)",
        code="deadline_infeasible",
    )


def deadline_lapsed(*, waited: float, deadline: float, retry_after: float) -> Overloaded:
    """It waited in good hope; now it could not keep the deadline if it began at once."""
    return Overloaded(
        f"after {waited:.1f} s in the queue the first token can no longer come within "
        f"{deadline:.1f} s of the request",
        retry_after=retry_after,
        hint="send again after Retry-After seconds, or allow a later deadline (x-ondol-deadline-ms)",
        code="deadline_lapsed",
    )


def deadline_unreachable(*, prefill: float, deadline: float) -> Overloaded:
    """The machine could not keep this promise if it did nothing else."""
    return Overloaded(
        f"reading this prompt alone takes about {prefill:.1f} s here, "
        f"the first token was wanted within {deadline:.1f} s",
        retry_after=_UNREACHABLE_SECONDS,
        hint="shorten the prompt or allow a later deadline (x-ondol-deadline-ms); "
        "waiting will not help",
        code="deadline_unreachable",
    )


def shed(lane: str, *, reasons: str, retry_after: float) -> Overloaded:
    return Overloaded(
        f"the machine is short of {reasons}, so the lane {lane} is closed for now",
        retry_after=retry_after,
        hint="send again after Retry-After seconds",
        code="shed",
    )


def closing() -> NotReady:
    return NotReady(
        "the generator is being closed", retry_after=5.0, hint="send again after Retry-After"
    )
