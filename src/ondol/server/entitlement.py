"""What a request may claim of the generator: its lane, its deadline, and whose prompt cache it is.

Read from headers (``x-ondol-lane``, ``x-ondol-deadline-ms``) and from what its API key maps to; a key
with a lane of its own cannot choose another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request

from ondol.core.errors import InvalidInput, SettingsError
from ondol.core.lanes import LANES
from ondol.core.terms import Terms

_LEAST_MS, _MOST_MS = 1.0, 24 * 3600 * 1e3


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What an API key maps to: an opaque name, a lane of its own (empty: the caller's choice)."""

    tenant: str
    lane: str = ""
    share: float = 1.0


def key_lanes(entries: Sequence[str], *, keys: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Return lane and share by key from ``server.key_lanes`` (``key=lane`` or ``key=lane:share``).

    Raises ``SettingsError`` for an unknown key or lane, and for a share outside (0, 1].
    """
    found: dict[str, tuple[str, float]] = {}
    for entry in entries:
        key, _, rest = entry.rpartition("=")
        lane, _, share_text = rest.partition(":")
        share = _number(share_text or "1")
        if key not in keys or lane not in LANES or share is None or not 0 < share <= 1:
            raise SettingsError(
                f"server.key_lanes holds an entry for the lane {lane!r} with the share "
                f"{share_text or '1'!r} that is not KEY=LANE:SHARE of a key in server.api_keys",
                hint=f"the lanes are {', '.join(LANES)}; a share is above 0 and at most 1",
                param="server.key_lanes",
            )
        found[key] = (lane, share)
    return found


def terms_of(request: Request, *, lane: str = "chat") -> Terms:
    """Return the request's terms; raises ``InvalidInput`` for headers that are off.

    ``lane`` is what the request goes by where neither its key nor its header says.
    """
    key: KeyTerms = request.scope.get("state", {}).get("key_terms", KeyTerms(""))
    asked = request.headers.get("x-ondol-lane", "")
    if asked and asked not in LANES:
        raise InvalidInput(
            f"there is no lane {asked[:40]!r}",
            hint=f"the lanes are {', '.join(LANES)}",
            code="unknown_lane",
            param="x-ondol-lane",
        )
    return Terms(
        lane=key.lane or asked or lane,
        deadline_ms=_deadline(request.headers),
        tenant=key.tenant,
        share=key.share,
    )


def _deadline(headers: Mapping[str, str]) -> float | None:
    text = headers.get("x-ondol-deadline-ms")
    if text is None:
        return None
    value = _number(text)
    if value is None or not _LEAST_MS <= value <= _MOST_MS:
        raise InvalidInput(
            f"x-ondol-deadline-ms is {text[:40]!r}, it is a number of milliseconds from 1 to a day",
            hint="send for example x-ondol-deadline-ms: 2000",
            param="x-ondol-deadline-ms",
        )
    return value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
