from __future__ import annotations

from ondol.core.cancel import CancelToken


def test_callbacks_run_once_also_when_they_come_late() -> None:
    token = CancelToken()
    calls: list[str] = []
    token.on_cancel(lambda: calls.append("early"))
    assert not token.cancelled
    token.cancel()
    token.cancel()
    token.on_cancel(lambda: calls.append("late"))
    assert token.cancelled
    assert calls == ["early", "late"]
