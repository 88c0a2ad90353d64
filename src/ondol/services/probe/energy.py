"""Energy of the processor packages from RAPL, where the kernel lets us read it.

Source: the Linux powercap interface, ``/sys/class/powercap/intel-rapl:N/energy_uj`` (AMD too).
Virtual machines have none, and many systems let only root read it: then there is no figure.
"""

from __future__ import annotations

from pathlib import Path

_POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Counts joules of all packages from its making on; counters that wrap are mended once."""

    def __init__(self, *, root: Path = _POWERCAP) -> None:
        self._zones = sorted(
            zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1
        )
        self._start = self._read()

    def joules(self) -> float | None:
        """Return the joules since the start, or ``None`` where there is no counter to read."""
        now = self._read()
        if not self._start or len(now) != len(self._start):
            return None
        total = 0
        for (before, _), (after, span) in zip(self._start, now, strict=True):
            total += after - before if after >= before else after + span - before
        return total / 1e6

    def _read(self) -> list[tuple[int, int]]:
        """Return (microjoules, range) per package; empty where one cannot be read."""
        try:
            return [
                (
                    int((zone / "energy_uj").read_text()),
                    int((zone / "max_energy_range_uj").read_text()),
                )
                for zone in self._zones
            ]
        except (OSError, ValueError):
            return []
