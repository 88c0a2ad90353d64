"""The dashboard, the rules and their tests: true to the table of metrics, sound to real promtool."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.promtool import promtool

from ondol.core.clock import ManualClock
from ondol.core.events import RequestFinished, Timing
from ondol.core.machine import MachineUsage
from ondol.core.settings.lane_sections import LANES
from ondol.core.settings.operation_sections import TelemetrySettings
from ondol.telemetry.metrics import TABLE, Listeners
from ondol.telemetry.readings import LaneLoad
from ondol.telemetry.recorder import RecorderStats
from ondol.telemetry.series import Series

OPS = Path(__file__).resolve().parents[2] / "ops"
DASHBOARD = OPS / "grafana" / "ondol.json"
ALERTS = OPS / "prometheus" / "alerts.yml"
ALERT_TESTS = OPS / "prometheus" / "alerts_test.yml"
CONFIG = OPS / "prometheus" / "prometheus.yml"
NAME = re.compile(r"\bondol_[a-z0-9_]+\b")
SELECTOR = re.compile(r"\b(ondol_[a-z0-9_]+)\{([^}]*)\}")
LABEL = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
_FROM_PROMETHEUS = {"instance", "job", "le"}


def sampled() -> dict[str, Series]:
    """Return every name a query may use, with the row it comes from."""
    endings = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return {f"{series.name}{ending}": series for series in TABLE for ending in endings[series.kind]}


def expressions() -> Iterator[tuple[str, str]]:
    """Yield (where, query) of the dashboard and the alert rules."""
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]
    yield ALERTS.name, ALERTS.read_text("utf-8")
    yield ALERT_TESTS.name, ALERT_TESTS.read_text("utf-8")


def test_every_metric_that_is_named_exists() -> None:
    known = sampled()
    named = [(where, name) for where, query in expressions() for name in NAME.findall(query)]
    assert len(named) > 60
    for where, name in named:
        # Prose names a series without its ending.
        assert name in known or name in {s.name for s in TABLE}, f"{where} names {name}"


def test_every_label_that_is_asked_for_exists_and_can_have_the_value() -> None:
    known = sampled()
    asked = 0
    for where, query in expressions():
        for name, selector in SELECTOR.findall(query):
            series = known[name]
            for label, value in LABEL.findall(selector):
                asked += 1
                assert label in {*series.labels, *_FROM_PROMETHEUS}, f"{where}: {name}{{{label}}}"
                values = {row[label] for row in series.before if label in row}
                if values and not value.startswith("$"):
                    assert set(value.split("|")) <= values, f"{where}: {name}{{{label}={value}}}"
    assert asked > 60


def test_the_dashboard_is_whole() -> None:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or (panel["targets"] and panel["description"])
    queries = " ".join(query for _, query in expressions())
    wanted = ("goodput_rps", "deadlines_total", "first_token_seconds_bucket", "lane_depth",
              "refusals_total", "tokens_total", "prompt_tokens_total", "process_resident_bytes",
              "generator_restarts_total")  # fmt: skip
    assert all(f"ondol_{name}" in queries for name in wanted)


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    rules = set(re.findall(r"- alert: (\w+)", ALERTS.read_text("utf-8")))
    cases = re.findall(
        r"alertname: (\w+)\n\s+exp_alerts:\n\s+- exp_labels", ALERT_TESTS.read_text("utf-8")
    )
    assert rules == set(cases)
    guide = (OPS.parent / "docs" / "guides" / "monitoring.md").read_text("utf-8")
    assert all(f"`{rule}`" in guide for rule in rules)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", str(ALERTS)),
        ("check", "config", str(CONFIG)),
        ("test", "rules", str(ALERT_TESTS)),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    assert "SUCCESS" in promtool(*arguments)


def test_an_alert_that_asks_for_too_much_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(
        ALERTS.read_text("utf-8").replace("< 0.9\n", "< 0.5\n"), "utf-8"
    )
    (tmp_path / "alerts_test.yml").write_text(ALERT_TESTS.read_text("utf-8"), "utf-8")
    with pytest.raises(pytest.fail.Exception, match="OndolPromisesBroken"):
        promtool("test", "rules", str(tmp_path / "alerts_test.yml"))


def test_promtool_finds_no_fault_in_what_is_rendered() -> None:
    heard = Listeners(TelemetrySettings(log_requests=False), clock=ManualClock(1000.0))
    heard.metrics.sources.lanes = lambda: {lane: LaneLoad(1, 1, 9, 9, 0.5) for lane in LANES}
    heard.metrics.sources.usage = lambda: MachineUsage(memory=0.5, cpu=0.5)
    heard.metrics.sources.recorder = lambda: RecorderStats(written=1)
    assert promtool("check", "metrics", stdin=heard.metrics.render()) == ""
    timing = Timing(ttft_ms=500, total_ms=900, tpot_ms=20, itl_p50_ms=19, itl_p99_ms=90)
    heard.observe(RequestFinished("chat", "m", "ok", timing, generated=True, deadline_ms=2000))
    heard.observe(RequestFinished("chat", "m", "refused", Timing(), code="shed"))
    assert promtool("check", "metrics", stdin=heard.metrics.render()) == ""
