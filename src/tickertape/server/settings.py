"""What ``tickertape serve`` is told: by flags, environment variables and a file, the first of them winning."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ..asgi import DEFAULT_HEARTBEAT, DEFAULT_SEND_TIMEOUT
from ..broker import DEFAULT_RETENTION, Retention, create_broker
from ..errors import BrokerError
from ..hub import DEFAULT_DRAIN_WINDOW, DEFAULT_MAX_EVENT_SIZE, DEFAULT_RETRY, MAX_TOPICS

__all__ = ["DEFAULT_BROKER", "ENV_PREFIX", "Settings", "SettingsError", "load_settings"]

DEFAULT_BROKER: Final = "sqlite:///tickertape.db"
"""Where events are kept unless the operator says otherwise: they survive a restart, and workers share them."""

ENV_PREFIX: Final = "TICKERTAPE_"

_ONE_PROCESS: Final = ("memory:",)
"""Brokers whose log other processes cannot see: each worker would have a log of its own."""

_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\s,]+")

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting has a value that it cannot have; the text is a sentence that names the setting and its source."""


def _none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _origins(value: Any) -> Any:
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError
    return value


Origin = Annotated[str, AfterValidator(_origin)]
Limit = Annotated[T | None, BeforeValidator(_none)]


def _setting(default: Any, expected: str, **bounds: Any) -> Any:
    return Field(default, json_schema_extra={"expected": expected}, **bounds)


class Settings(BaseSettings):
    """Hold the settings of a server; the attributes are those of the flags of ``tickertape serve``."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, allow_inf_nan=False
    )

    host: str = _setting("127.0.0.1", "an address", min_length=1)
    port: int = _setting(8000, "an integer from 0 to 65535", ge=0, le=65535)
    broker: str = _setting(DEFAULT_BROKER, "the URL of a broker", min_length=1)
    workers: int = _setting(1, "an integer of 1 or more", ge=1)
    retention_events: Limit[int] = _setting(DEFAULT_RETENTION.events, "an integer of 1 or more, or none", ge=1)
    retention_bytes: Limit[ByteSize] = _setting(
        DEFAULT_RETENTION.bytes, "a number of bytes (67108864, 64MiB), or none", ge=1
    )
    retention_age: Limit[float] = _setting(DEFAULT_RETENTION.age, "a number of seconds over 0, or none", gt=0)
    heartbeat: Limit[float] = _setting(DEFAULT_HEARTBEAT, "a number of seconds over 0, or none", gt=0)
    send_timeout: Limit[float] = _setting(DEFAULT_SEND_TIMEOUT, "a number of seconds over 0, or none", gt=0)
    retry: float = _setting(DEFAULT_RETRY, "a number of seconds over 0", gt=0)
    max_event_size: ByteSize = _setting(DEFAULT_MAX_EVENT_SIZE, "a number of bytes (1048576, 1MiB)", ge=1)
    max_topics: int = _setting(MAX_TOPICS, "an integer of 1 or more", ge=1)
    drain_window: float = _setting(DEFAULT_DRAIN_WINDOW, "a number of seconds, 0 or more", ge=0)
    cors_origin: Annotated[list[Origin], NoDecode, BeforeValidator(_origins)] = _setting(
        [], "origins such as https://example.org, or *"
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "one of 'debug', 'info', 'warning', 'error'"
    )
    access_log: bool = _setting(False, "true or false")

    @property
    def retention(self) -> Retention:
        """How much of the log is kept."""
        return Retention(events=self.retention_events, bytes=self.retention_bytes, age=self.retention_age)


def load_settings(flags: Mapping[str, Any], file: Path | None = None) -> Settings:
    """Return the settings: those of ``flags``, then of the environment, then of ``file``, then the defaults.

    Arguments:
        flags: what was given on the command line, by the name of the setting.
        file: in TOML; its keys are the names of the settings.

    Raises:
        SettingsError: a value is wrong, a key is unknown, or the file cannot be read.
    """
    in_file = {} if file is None else _read(file)

    class Loader(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, in_file)

    def source(name: str) -> str:
        if name in flags:
            return "--" + name.replace("_", "-")
        variable = ENV_PREFIX + name.upper()
        known = next((given for given, value in os.environ.items() if given.upper() == variable and value), None)
        return known or (str(file) if name in in_file else "the defaults")

    try:
        settings = Settings(**Loader(**flags).model_dump())
    except ValidationError as error:
        [first, *_] = error.errors()
        raise SettingsError(_sentence(str(first["loc"][0]), first, source)) from None
    try:
        create_broker(settings.broker)
    except (BrokerError, ValueError) as error:
        raise SettingsError(f"{error} (from {source('broker')})") from None
    if settings.workers > 1 and settings.broker.startswith(_ONE_PROCESS):
        raise SettingsError(
            f"expected workers to be 1 with the broker {settings.broker}, whose log lives in one process, "
            f"got {settings.workers} (from {source('workers')})"
        )
    return settings


def _sentence(name: str, error: Any, source: Any) -> str:
    field = Settings.model_fields.get(name)
    if field is None:
        near = difflib.get_close_matches(name, Settings.model_fields, 1)
        names = f"{near[0]!r}" if near else f"one of {', '.join(Settings.model_fields)}"
        return f"expected the setting {names}, got the unknown {name!r} (from {source(name)})"
    extra = field.json_schema_extra
    expected = extra["expected"] if isinstance(extra, dict) else "another value"
    return f"expected {name} to be {expected}, got {error['input']!r} (from {source(name)})"


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"expected settings in {file} (from --config), got: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"expected TOML in {file} (from --config), got: {error}") from None
