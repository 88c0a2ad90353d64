"""What a request is entitled to: its lane, its deadline, and whose it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RequestTerms:
    """``deadline_ms`` is the caller's own promise for the first token, counted from its arrival;
    without it the lane's applies. ``elapsed_ms`` has gone by since that arrival. ``tenant`` keeps
    prompt caches apart; it may hold at most ``share`` of its lane's places.
    """

    lane: str = "chat"
    deadline_ms: float | None = None
    elapsed_ms: float = 0.0
    tenant: str = ""
    share: float = 1.0
