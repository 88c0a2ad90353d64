"""Everyone in a server who listens to events, as one ``Observer``: metrics, goodput, log, tracing.

Built from the settings; the recorder is not among them, because it must be closed before the store.
"""

from __future__ import annotations

from ondol.core.clock import Clock
from ondol.core.observe import Event, Observer, Observers
from ondol.core.operating_sections import TelemetrySettings
from ondol.telemetry.goodput import Goodput
from ondol.telemetry.metrics import Metrics
from ondol.telemetry.readings import Sources
from ondol.telemetry.request_log import RequestLog
from ondol.telemetry.tracing import Tracing


class Listeners:
    """Raises ``SettingsError`` where an endpoint is set and the extra ``otel`` is missing."""

    def __init__(self, settings: TelemetrySettings, *, clock: Clock) -> None:
        self.goodput = Goodput(clock=clock)
        self.metrics = Metrics(Sources(goodput=self.goodput.snapshot))
        self._tracing = (
            Tracing.to(settings.otlp_endpoint, clock=clock) if settings.otlp_endpoint else None
        )
        wanted: list[Observer] = [self.metrics, self.goodput]
        if settings.log_requests:
            wanted.append(RequestLog())
        if self._tracing is not None:
            wanted.append(self._tracing)
        self._all = Observers(*wanted)

    def observe(self, event: Event) -> None:
        self._all.observe(event)

    def close(self) -> None:
        """Send what tracing still holds; blocks for some seconds at most."""
        if self._tracing is not None:
            self._tracing.close()
