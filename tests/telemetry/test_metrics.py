"""What ``/metrics`` shows: before traffic, after it, and when something it reads fails."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ondol.core.clock import ManualClock
from ondol.core.events import PressureChanged, RequestFinished, Timing
from ondol.core.machine import MachineUsage
from ondol.core.settings.lane_sections import LANES
from ondol.core.settings.operation_sections import TelemetrySettings
from ondol.telemetry.metrics import TABLE, Listeners, Metrics
from ondol.telemetry.readings import LaneLoad
from ondol.telemetry.recorder import RecorderStats
from ondol.telemetry.series import GENERATING


def samples(metrics: Metrics) -> dict[str, float]:
    """Return every sample by its name and sorted labels."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def listeners() -> Listeners:
    return Listeners(TelemetrySettings(log_requests=False), clock=ManualClock(1000.0))


def test_series_of_every_lane_exist_before_traffic() -> None:
    found = samples(listeners().metrics)
    for lane in LANES:
        assert found[f'ondol_requests_total{{lane="{lane}",outcome="refused"}}'] == 0
        assert found[f'ondol_refusals_total{{code="shed",lane="{lane}"}}'] == 0
        assert found[f'ondol_deadlines_total{{lane="{lane}",result="met"}}'] == 0
        assert found[f'ondol_goodput_rps{{lane="{lane}",window="5m"}}'] == 0
        share = found[f'ondol_attainment_ratio{{lane="{lane}",of="offered",window="1h"}}']
        assert math.isnan(share)
    for lane in GENERATING:
        for limit in ("0.5", "1.0", "1.5", "2.0", "3.0"):
            assert found[f'ondol_first_token_seconds_bucket{{lane="{lane}",le="{limit}"}}'] == 0
            assert f'ondol_request_total_seconds_bucket{{lane="{lane}",le="{limit}"}}' in found


def test_a_request_is_counted_in_all_its_parts() -> None:
    heard = listeners()
    timing = Timing(
        ttft_ms=1000, total_ms=3000, tpot_ms=40, itl_p50_ms=38, itl_p99_ms=200, prefill_ms=800
    )
    heard.observe(
        RequestFinished(
            "chat", "m", "ok", timing, tokens_in=100, tokens_out=51, tokens_cached=80,
            generated=True, deadline_ms=2000, predicted_ms=900,
        )
    )  # fmt: skip
    late = Timing(ttft_ms=2100, total_ms=2500)
    heard.observe(RequestFinished("chat", "m", "ok", late, generated=True, deadline_ms=2000))
    heard.observe(
        RequestFinished(
            "chat", "m", "refused", Timing(), code="deadline_infeasible",
            generated=True, deadline_ms=2000,
        )
    )  # fmt: skip
    found = samples(heard.metrics)
    assert found['ondol_refusals_total{code="deadline_infeasible",lane="chat"}'] == 1
    for result in ("met", "missed", "refused"):
        assert found[f'ondol_deadlines_total{{lane="chat",result="{result}"}}'] == 1
    assert found['ondol_first_token_seconds_bucket{lane="chat",le="1.0"}'] == 1
    assert found['ondol_first_token_seconds_bucket{lane="chat",le="2.0"}'] == 1
    assert found['ondol_first_token_seconds_count{lane="chat"}'] == 2
    assert found['ondol_first_token_error_ratio_sum{lane="chat"}'] == pytest.approx(0.1)
    assert found['ondol_time_per_output_token_seconds_sum{lane="chat"}'] == pytest.approx(0.04)
    assert found['ondol_inter_token_tail_seconds_sum{lane="chat"}'] == pytest.approx(0.2)
    assert found['ondol_prompt_tokens_total{found="cached",lane="chat"}'] == 80
    assert found['ondol_prompt_tokens_total{found="computed",lane="chat"}'] == 20
    assert found['ondol_attainment_ratio{lane="chat",of="offered",window="5m"}'] == 1 / 3
    assert found['ondol_attainment_ratio{lane="chat",of="admitted",window="5m"}'] == 1 / 2
    assert found['ondol_goodput_rps{lane="chat",window="1m"}'] > 0


def test_sources_are_read_when_they_are_there() -> None:
    metrics = listeners().metrics
    assert 'ondol_lane_depth{lane="chat"}' not in samples(metrics)
    metrics.sources.lanes = lambda: {"chat": LaneLoad(3, 2, 25, 5, wait_seconds=1.5)}
    metrics.sources.usage = lambda: MachineUsage(memory=0.25)
    metrics.sources.recorder = lambda: RecorderStats(written=7, dropped=1, waiting=2)
    found = samples(metrics)
    assert found['ondol_lane_depth{lane="chat"}'] == 3
    assert found['ondol_lane_running{lane="chat"}'] == 2
    assert found['ondol_lane_queue_limit{lane="chat"}'] == 25
    assert found['ondol_lane_running_limit{lane="chat"}'] == 5
    assert found['ondol_lane_wait_seconds{lane="chat"}'] == 1.5
    assert found['ondol_resource_usage_ratio{resource="memory"}'] == 0.25
    assert 'ondol_resource_usage_ratio{resource="gpu"}' not in found
    assert found['ondol_recorder_rows_total{result="written"}'] == 7
    assert found["ondol_recorder_waiting"] == 2
    assert found["ondol_process_cpu_seconds_total"] > 0
    assert found["ondol_process_start_time_seconds"] > 1e9


def test_a_source_that_fails_costs_its_own_series_only(caplog: pytest.LogCaptureFixture) -> None:
    metrics = listeners().metrics

    def broken() -> Mapping[str, LaneLoad]:
        raise RuntimeError("no engine")

    metrics.sources.lanes = broken
    found = samples(metrics)
    assert found['ondol_requests_total{lane="chat",outcome="ok"}'] == 0
    assert "no engine" in caplog.text


def test_pressure_is_shown() -> None:
    metrics = Metrics()
    assert samples(metrics)["ondol_concurrency_ratio"] == 1
    metrics.observe(PressureChanged("high", before="none", concurrency=0.5, shed=True))
    found = samples(metrics)
    assert found["ondol_concurrency_ratio"] == 0.5
    assert found['ondol_pressure_changes_total{level="high"}'] == 1


def test_every_row_of_the_table_is_shown() -> None:
    metrics = listeners().metrics
    shown = {family.name for family in text_string_to_metric_families(metrics.render().decode())}
    for series in TABLE:
        assert series.name in shown, series.name
