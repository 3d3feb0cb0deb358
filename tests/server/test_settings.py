"""Settings from flags, the environment and a file, and the messages about invalid ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from tickertape.broker import DEFAULT_RETENTION, Retention
from tickertape.server import DEFAULT_BROKER, Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TICKERTAPE_{name.upper()}", raising=False)


def written(folder: Path, text: str) -> Path:
    file = folder / "hub.toml"
    file.write_text(text)
    return file


def test_defaults() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.broker, settings.workers) == ("127.0.0.1", 8000, DEFAULT_BROKER, 1)
    assert settings.retention == DEFAULT_RETENTION
    assert settings.cors_origin == []


@pytest.mark.parametrize(
    ("flags", "environment", "file", "port"),
    [
        ({}, None, "", 8000),
        ({}, None, "port = 3", 3),
        ({}, "2", "port = 3", 2),
        ({"port": "1"}, "2", "port = 3", 1),
        ({"port": "1"}, None, "port = 3", 1),
        ({"port": "1"}, "2", "", 1),
        ({}, "", "port = 3", 3),  # an empty variable does not count
    ],
)
def test_order_of_sources(
    flags: dict[str, Any],
    environment: str | None,
    file: str,
    port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if environment is not None:
        monkeypatch.setenv("TICKERTAPE_PORT", environment)
    assert load_settings(flags, written(tmp_path, file)).port == port


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("retention_events", "none", None),
        ("retention_events", "7", 7),
        ("retention_bytes", "1MiB", 1 << 20),
        ("retention_bytes", "1000", 1000),
        ("retention_bytes", "None", None),
        ("retention_age", "0.5", 0.5),
        ("heartbeat", "none", None),
        ("send_timeout", "1e1", 10.0),
        ("drain_window", "0", 0.0),
        ("max_event_size", "2 KiB", 2048),
        ("cors_origin", "https://a.example, http://b.example:8080", ["https://a.example", "http://b.example:8080"]),
        ("cors_origin", "*", ["*"]),
        ("retention_topic", "metrics/**=60s, a=5", ["metrics/**=60s", "a=5"]),
        ("access_log", "yes", True),
        ("allowed_hosts", "hub.example.org, *.example.org", ["hub.example.org", "*.example.org"]),
        ("trusted_proxies", "10.0.0.0/8 ::1", ["10.0.0.0/8", "::1"]),
        ("body_rate", "1KiB", 1024),
        ("client_connections", "none", None),
        ("publish_rate", "0.5", 0.5),
        ("log_level", "debug", "debug"),
    ],
)
def test_values_as_text(name: str, text: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TICKERTAPE_{name.upper()}", text)
    assert getattr(load_settings({}), name) == value


def test_file(tmp_path: Path) -> None:
    text = """
        retention_events = "none"
        retention_bytes = "1MiB"
        retention_age = 3600
        cors_origin = ["https://a.example"]
        access_log = true
    """
    settings = load_settings({"cors_origin": ["https://b.example"]}, written(tmp_path, text))
    assert settings.retention == Retention(events=None, bytes=1 << 20, age=3600)
    assert settings.cors_origin == ["https://b.example"]
    assert settings.access_log is True


@pytest.mark.parametrize(
    ("flags", "environment", "file", "said"),
    [
        ({"port": "http"}, {}, "", "expected port to be an integer from 0 to 65535, got 'http' (from --port)"),
        ({"port": "65536"}, {}, "", "got '65536' (from --port)"),
        ({"workers": "0"}, {}, "", "expected workers to be an integer of 1 or more, got '0' (from --workers)"),
        ({"heartbeat": "0"}, {}, "", "expected heartbeat to be a number of seconds over 0, or none, got '0'"),
        ({"heartbeat": "nan"}, {}, "", "got 'nan' (from --heartbeat)"),
        ({"retention_events": "many"}, {}, "", "(from --retention-events)"),
        ({"max_event_size": "1XB"}, {}, "", "expected max_event_size to be a number of bytes (1048576, 1MiB)"),
        ({"log_level": "loud"}, {}, "", "one of 'debug', 'info', 'warning', 'error', got 'loud' (from --log-level)"),
        ({"retention_topic": ["a=60x"]}, {}, "", "expected retention_topic to be rules such as metrics/**=60s"),
        ({"retention_topic": ["a"]}, {}, "", "got 'a' (from --retention-topic)"),
        ({"retention_topic": ["a=0"]}, {}, "", "got 'a=0' (from --retention-topic)"),
        ({"retention_topic": ["a**=5"]}, {}, "", "got 'a**=5' (from --retention-topic)"),
        ({"retention_topic": ["a=5+6"]}, {}, "", "got 'a=5+6' (from --retention-topic)"),
        ({"cors_origin": ["a.example"]}, {}, "", "expected cors_origin to be origins such as https://example.org"),
        ({"allowed_hosts": ["a.example:80"]}, {}, "", "expected allowed_hosts to be names such as hub.example.org"),
        ({"trusted_proxies": ["proxy"]}, {}, "", "expected trusted_proxies to be addresses or networks"),
        ({"max_headers": "1"}, {}, "", "expected max_headers to be an integer of 10 or more, got '1'"),
        ({"cors_credentials": "yes", "cors_origin": ["*"]}, {}, "", "that may send credentials, got '*'"),
        ({"cors_origin": ["https://a.example/"]}, {}, "", "got 'https://a.example/' (from --cors-origin)"),
        ({"host": ""}, {}, "", "expected host to be an address, got '' (from --host)"),
        ({}, {"PORT": "tcp://10.0.0.1:80"}, "", "got 'tcp://10.0.0.1:80' (from TICKERTAPE_PORT)"),
        ({}, {"DRAIN_WINDOW": "-1"}, "", "got '-1' (from TICKERTAPE_DRAIN_WINDOW)"),
        ({}, {}, 'port = "x"', "expected port to be an integer from 0 to 65535, got 'x' (from {file})"),
        ({"port": "1"}, {"PORT": "2"}, "retry = 0", "expected retry to be a number of seconds over 0, got 0 (from {f"),
        ({}, {}, "prot = 1", "unknown setting 'prot': did you mean 'port'? (from {file})"),
        ({}, {}, "zzzzz = 1", "unknown setting 'zzzzz': the settings are host, port, uds, "),
        ({}, {}, "[server]\nport = 1", "unknown setting 'server': the settings are host, "),
        ({}, {}, "port = ", "{file} (from --config) is not valid TOML: "),
        (
            {},
            {"BROKER": "memory://"},
            "workers = 2",
            "the log of the broker memory:// lives in one process: expected workers to be 1, got 2",
        ),
        (
            {"workers": "2"},
            {"BROKER": "memory://"},
            "",
            "lives in one process: expected workers to be 1, got 2 (from --workers)",
        ),
    ],
)
def test_invalid_settings(
    flags: dict[str, Any],
    environment: dict[str, str],
    file: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"TICKERTAPE_{name}", value)
    path = written(tmp_path, file)
    with pytest.raises(SettingsError) as raised:
        load_settings(flags, path)
    sentence = str(raised.value)
    assert said.replace("{file}", str(path)).replace("{f", str(path)) in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("url", ["ftp://u:geheim@h/keys", "u:geheim@h", "ftp://h/keys?access_token=geheim"])
def test_secret_in_a_refused_value(url: str) -> None:
    with pytest.raises(SettingsError, match="expected jwks_url to be a URL") as error:
        load_settings({"jwks_url": url})
    assert "geheim" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read .*none.toml \(from --config\): No such file"):
        load_settings({}, tmp_path / "none.toml")


def test_workers_with_a_shared_log() -> None:
    assert load_settings({"workers": "4", "broker": "redis://localhost"}).workers == 4


def test_pickle() -> None:
    settings = load_settings({"port": "1", "cors_origin": ["*"]})
    assert pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("metrics/**=60s", Retention(events=None, age=60.0)),
        ("metrics/**=1.5m", Retention(events=None, age=90.0)),
        ("a=b/*=1000", Retention(events=1000)),
        ("a=90d+1GiB", Retention(events=None, bytes=1024**3, age=90 * 86400.0)),
        ("a=1KiB+2+3h", Retention(events=2, bytes=1024, age=3 * 3600.0)),
    ],
)
def test_rules_of_topics(text: str, limits: Retention) -> None:
    settings = load_settings({"retention_topic": [text]})
    assert settings.retention.rules[0] == (text.rpartition("=")[0], limits)
    assert settings.retention.rules[1:] == Retention().rules
