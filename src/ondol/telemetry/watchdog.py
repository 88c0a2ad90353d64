"""Whether a service has been idle for long enough: a pure judgement of looks, with its evidence.

Idle means: nothing runs, nothing waits, and every look since then found the GPU and the service
under the threshold. What is not known is not idle. One action an idle time; work arms it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ondol.core.clock import Clock
from ondol.core.machine import MachineUsage
from ondol.core.settings.operation_sections import WatchdogSettings

Action = Literal["none", "unload", "exit", "command"]
Verdict = Literal["unknown", "working", "busy", "idle", "due", "done"]
Source = Literal["gpu", "processor", "requests"]

_MISSED_LOOKS = 3


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """How many requests of a service run and wait now."""

    running: int
    queued: int

    @property
    def none(self) -> bool:
        return not self.running and not self.queued

    @classmethod
    def of_lanes(cls, said: object) -> ServiceLoad | None:
        """Return the sum over what ``GET /v1/lanes`` said; ``None`` where that is not certain.

        A lane whose model is not loaded says neither ``depth`` nor ``running`` and holds nothing;
        what is said must be counts, and at least one lane must say its ``depth``.
        """
        lanes = said.get("lanes") if isinstance(said, Mapping) else None
        if not isinstance(lanes, Mapping):
            return None
        queued = [_count(lane, "depth") for lane in lanes.values()]
        running = [_count(lane, "running") for lane in lanes.values()]
        if not any("depth" in lane for lane in lanes.values() if isinstance(lane, Mapping)):
            return None
        if None in queued or None in running:
            return None
        return cls(running=sum(filter(None, running)), queued=sum(filter(None, queued)))


@dataclass(frozen=True, slots=True)
class IdleEvidence:
    """What a decision rests on.

    ``gpu`` and ``service`` are shares of the last look (``service`` of the cores the service may
    use), ``busiest`` the highest share and ``looks`` the number of looks in the idle time of
    ``idle_for`` seconds so far; ``measured`` is what could be read. Thresholds as set.
    """

    running: int | None
    queued: int | None
    gpu: float | None
    service: float | None
    measured: tuple[Source, ...]
    looks: int
    busiest: float
    idle_for: float
    idle_seconds: float
    busy_below: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What a look led to. ``due`` asks for ``action`` now; ``done`` says that it was asked for."""

    verdict: Verdict
    action: Action
    reason: str
    evidence: IdleEvidence


class IdleWatch:
    """Judges looks one after the other."""

    def __init__(self, settings: WatchdogSettings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._since: float | None = None
        self._looked_at = 0.0
        self._looks = 0
        self._busiest = 0.0
        self._acted = False

    def look(self, load: ServiceLoad | None, usage: MachineUsage) -> Decision:
        """Judge one look; the action falls due at most once in an idle time."""
        now = self._clock.monotonic()
        if now - self._looked_at > _MISSED_LOOKS * self._settings.sample_seconds:
            self._since = None  # nobody saw what happened meanwhile
        self._looked_at = now
        share = max(usage.gpu or 0.0, usage.cpu_own or 0.0)
        if load is None:
            return self._awake("unknown", "the service does not say what it does", load, usage)
        if not load.none:
            said = f"{load.running} requests run and {load.queued} wait"
            return self._awake("working", said, load, usage)
        if share >= self._settings.busy_below:
            said = f"{share:.1%} busy, idle is below {self._settings.busy_below:.1%}"
            return self._awake("busy", said, load, usage)
        if self._since is None:
            self._since, self._looks, self._busiest = now, 0, 0.0
        self._looks += 1
        self._busiest = max(self._busiest, share)
        return self._asleep(now - self._since, load, usage)

    def _awake(
        self, verdict: Verdict, reason: str, load: ServiceLoad | None, usage: MachineUsage
    ) -> Decision:
        self._since, self._looks, self._busiest = None, 0, 0.0
        # A service that no longer answers has done nothing: only work arms the action again.
        self._acted = self._acted and verdict == "unknown"
        return Decision(verdict, self._settings.action, reason, self._evidence(0.0, load, usage))

    def _asleep(self, seconds: float, load: ServiceLoad, usage: MachineUsage) -> Decision:
        wanted = self._settings.idle_seconds
        verdict: Verdict = "idle"
        reason = f"idle for {seconds:.0f} s of {wanted:g} s"
        if seconds >= wanted:
            verdict = "done" if self._acted else "due"
            reason = f"idle for {seconds:.0f} s, at most {self._busiest:.1%} busy"
            self._acted = True
        evidence = self._evidence(seconds, load, usage)
        return Decision(verdict, self._settings.action, reason, evidence)

    def _evidence(
        self, seconds: float, load: ServiceLoad | None, usage: MachineUsage
    ) -> IdleEvidence:
        known: dict[Source, bool] = {
            "gpu": usage.gpu is not None,
            "processor": usage.cpu_own is not None,
            "requests": load is not None,
        }
        return IdleEvidence(
            running=None if load is None else load.running,
            queued=None if load is None else load.queued,
            gpu=usage.gpu,
            service=usage.cpu_own,
            measured=tuple(source for source, there in known.items() if there),
            looks=self._looks,
            busiest=self._busiest,
            idle_for=seconds,
            idle_seconds=self._settings.idle_seconds,
            busy_below=self._settings.busy_below,
        )


def _count(lane: object, key: str) -> int | None:
    """Return what a lane counts, 0 where it does not say; ``None`` where that is no count."""
    value = lane.get(key, 0) if isinstance(lane, Mapping) else None
    return value if type(value) is int and value >= 0 else None
