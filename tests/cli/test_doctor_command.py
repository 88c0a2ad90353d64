"""Doctor: facts, checks with remedies, and where every setting comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Run


def test_a_fresh_machine_is_well_but_has_no_models(tmp_path: Path, run: Run) -> None:
    found = run("doctor", "--json", "--home", str(tmp_path / "fresh"))
    assert found.code == 0
    assert found.data["ok"]
    assert found.data["store"] is None
    states = {check["name"]: check["state"] for check in found.data["checks"]}
    assert states["python"] == states["libraries"] == states["home"] == states["store"] == "ok"
    assert states["models"] == "warn"
    models = next(check for check in found.data["checks"] if check["name"] == "models")
    assert models["hint"].startswith("ondol models pull multilingual-e5-small")
    assert not (tmp_path / "fresh").exists(), "looking must not make anything"


def test_the_store_is_checked(notes: Path, run: Run) -> None:
    found = run("doctor", "--json").data
    assert found["store"]["documents"] == 2
    assert found["store"]["problems"] == []
    assert "agree" in run("doctor").out
    assert run("doctor", "--repair").code == 0


def test_a_home_that_cannot_be_written_fails(tmp_path: Path, run: Run) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way", "utf-8")
    found = run("doctor", "--json", "--home", str(blocked / "home"))
    assert found.code == 1
    home = next(check for check in found.data["checks"] if check["name"] == "home")
    assert home["state"] == "fail"
    assert "ONDOL_HOME" in home["hint"]


def test_settings_name_their_source(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "my.toml"
    config.write_text("[retrieval]\ntop_k = 4\nrrf_k = 5\n", "utf-8")
    monkeypatch.setenv("ONDOL_RETRIEVAL_RRF_K", "6")
    found = run(
        "doctor", "--settings", "--json", "--config", str(config), "--set", "server.api_keys=secret"
    )
    settings = {setting["key"]: setting for setting in found.data["settings"]}
    assert settings["retrieval.top_k"]["value"] == 4
    assert settings["retrieval.top_k"]["source"] == str(config)
    assert settings["retrieval.rrf_k"]["value"] == 6
    assert settings["retrieval.rrf_k"]["source"] == "ONDOL_RETRIEVAL_RRF_K"
    assert settings["server.api_keys"]["source"] == "flag"
    assert settings["server.port"]["source"] == "default"
    assert "secret" not in found.out


def test_settings_show_no_key_and_no_password(run: Run) -> None:
    given = {
        "server.api_keys": "hush-1",
        "server.key_lanes": "hush-1=chat",
        "generation.upstream_key": "hush-2",
        "vectors.postgres_url": "postgresql://me:hush-3@db/x?password=hush-4",
        "cache.redis_url": "redis://:hush-5@cache:6379/0",
    }
    flags = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    for form in ([], ["--json"]):
        shown = run("doctor", "--settings", *form, *flags)
        assert shown.code == 0
        assert "hush" not in shown.out
        assert "(set)@db/x" in shown.out
