from __future__ import annotations

from pathlib import Path

import pytest

from ondol.core.errors import SettingsError
from ondol.core.settings import Settings, known_keys, load_settings, setting_sources


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    config = tmp_path / "ondol.toml"
    config.write_text("[server]\nport = 1\nhost = '127.0.0.2'\nmax_items = 7\n")
    settings = load_settings(
        config=config,
        environ={"ONDOL_SERVER_PORT": "2", "ONDOL_SERVER_HOST": "127.0.0.3"},
        flags={"server.port": 3},
    )
    assert settings.server.port == 3
    assert settings.server.host == "127.0.0.3"
    assert settings.server.max_items == 7
    assert settings.server.max_text_chars == Settings().server.max_text_chars


@pytest.mark.parametrize(
    ("environ", "flags", "near"),
    [
        ({"ONDOL_SERVER_PRT": "1"}, {}, "ONDOL_SERVER_PORT"),
        ({}, {"server.prot": 1}, "server.port"),
        ({"ONDOL_HOM": "/x"}, {}, "ONDOL_HOME"),
        ({}, {"lanes.embeddings.running": 1}, "lanes."),
        ({}, {"lanes.rerank.weight": 2}, "lanes."),
        ({}, {"lanes.rerank.late": "serve"}, "lanes."),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(
    environ: dict[str, str], flags: dict[str, object], near: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ=environ, flags=flags)
    assert near in caught.value.hint


def test_an_unknown_key_in_the_file_is_an_error(tmp_path: Path) -> None:
    config = tmp_path / "ondol.toml"
    config.write_text("[retrieval]\ntopk = 3\n")
    with pytest.raises(SettingsError, match="retrieval.topk") as caught:
        load_settings(config=config, environ={})
    assert "retrieval.top_k" in caught.value.hint


@pytest.mark.parametrize("value", ["99999", "abc", "-1"])
def test_a_value_out_of_range_names_the_key(value: str) -> None:
    with pytest.raises(SettingsError, match="server.port"):
        load_settings(environ={"ONDOL_SERVER_PORT": value})


def test_malformed_toml_and_a_missing_named_file_are_errors(tmp_path: Path) -> None:
    config = tmp_path / "ondol.toml"
    config.write_text("[server\n")
    with pytest.raises(SettingsError, match="TOML"):
        load_settings(config=config, environ={})
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(config=tmp_path / "nowhere.toml", environ={})


def test_lists_come_comma_separated_from_the_environment() -> None:
    settings = load_settings(environ={"ONDOL_SERVER_API_KEYS": "a, b,"})
    assert settings.server.api_keys == ("a", "b")


def test_home_and_offline_have_short_names() -> None:
    settings = load_settings(environ={"ONDOL_HOME": "/tmp/somewhere", "ONDOL_OFFLINE": "1"})
    assert settings.home == Path("/tmp/somewhere")
    assert settings.offline


def test_every_setting_says_what_it_is() -> None:
    assert all(description for description in known_keys().values())


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"USE_OPTIMIZED_MODELS": "true"}, "auto"),
        ({"USE_OPTIMIZED_MODELS": "False"}, "off"),
        ({"USE_OPTIMIZED_MODELS": "false", "ONDOL_MODELS_OPTIMIZE": "recipe"}, "recipe"),
        ({"ONDOL_MODELS_OPTIMIZE": "recipe", "USE_OPTIMIZED_MODELS": "false"}, "recipe"),
        ({"USE_OPTIMIZED_MODELS": ""}, "recipe"),
    ],
)
def test_use_optimized_models_is_an_alias_that_ours_beats(
    tmp_path: Path, environ: dict[str, str], expected: str
) -> None:
    config = tmp_path / "ondol.toml"
    config.write_text("[models]\noptimize = 'recipe'\n")
    assert load_settings(config=config, environ=environ).models.optimize == expected


def test_the_alias_is_named_as_the_source() -> None:
    environ = {"USE_OPTIMIZED_MODELS": "false"}
    assert setting_sources(environ=environ)["models.optimize"] == "USE_OPTIMIZED_MODELS"
    with pytest.raises(SettingsError, match="USE_OPTIMIZED_MODELS"):
        load_settings(environ={"USE_OPTIMIZED_MODELS": "perhaps"})


def test_a_split_between_embedders_of_two_models_is_refused() -> None:
    flags = {"ab.candidate": "bge-small-en-v1.5", "ab.mode": "split"}
    with pytest.raises(SettingsError, match="not comparable"):
        load_settings(environ={}, flags=flags)
    for good in (
        {"ab.candidate": "onnx:fp32"},
        {"ab.component": "reranker"},
        {"ab.mode": "shadow"},
    ):
        load_settings(environ={}, flags={**flags, **good})
