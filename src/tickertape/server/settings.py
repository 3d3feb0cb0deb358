"""Settings of ``tickertape serve``: from flags, environment variables and a file, the first of them winning."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from ..access import DEFAULT_CLAIM, DEFAULT_LEEWAY
from ..asgi import DEFAULT_HEARTBEAT, DEFAULT_SEND_TIMEOUT
from ..broker import DEFAULT_RETENTION, Retention, create_broker
from ..errors import BrokerError, InvalidTopicError
from ..hub import DEFAULT_DRAIN_WINDOW, DEFAULT_MAX_EVENT_SIZE, DEFAULT_RETRY
from ..wire import MAX_TOPICS, check_patterns
from .limits import Limits
from .metrics import Audience
from .uvicorn import Certificate

DEFAULT_MAX_AGE: Final = 600
"""Seconds for which browsers remember what pages may send: a changed setting is in effect after ten minutes."""

DEFAULT_BROKER: Final = "sqlite:///tickertape.db"
"""The log in a file: it survives a restart, and workers can share it."""

ENV_PREFIX: Final = "TICKERTAPE_"

_ONE_PROCESS: Final = ("memory:",)
"""Brokers whose log other processes cannot see, so that each worker would have a separate log."""

_ORIGIN: Final = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/?#@\s,]+")

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_BYTES: Final = TypeAdapter(ByteSize)

_MAY_BE_SECRET: Final = re.compile("[@?]")
"""Characters of a URL with a password or a query: it is not shown if it is refused."""

_HOST: Final = re.compile(r"\*|(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")

MAX_DIGITS: Final = 4_300
"""Digits of an integer that Python converts at most (``sys.int_info``)."""

_TIME: Final = "a number of seconds over 0, or none"
_SIZE: Final = "a number of bytes (65536, 64KiB), or none"
_COUNT: Final = "an integer of 1 or more, or none"
_RATE: Final = "a number per second over 0, or none"

_LIMITS: Final = Limits()

OF_THE_HUB: Final = ("heartbeat", "send_timeout", "retry", "max_event_size", "max_topics", "drain_window", "max_age")

_CREDENTIALS: Final = ("jwt_key_file", "jwks_url", "api_key_file", "anonymous_subscribe", "anonymous_publish")
"""Settings each of which configures access control."""

_NEEDS_TOKENS: Final = ("jwt_algorithm", "jwt_issuer", "jwt_audience", "jwt_subscribe", "jwt_publish")
"""Settings that mean nothing without a key for tokens."""

OF_ACCESS: Final = (*_CREDENTIALS, *_NEEDS_TOKENS, "jwt_leeway", "jwt_claim", "cookie")
"""Settings of access that can change while streams are open."""

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is invalid; the message is one sentence with the name of the setting and its source."""


def _none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _several(value: Any) -> Any:
    return value.replace(",", " ").split() if isinstance(value, str) else value


def read_rule(text: str) -> tuple[str, Retention]:
    """Return a rule for some topics, as ``metrics/**=60s``, ``audit/**=90d+1GiB`` or ``cursors/*=1000``.

    The limits are an age, bytes and a number of events. By default, a rule keeps 64 MiB of any number.

    Raises:
        ValueError: it is another text, or a limit is out of its range.
    """
    pattern, _, limits = text.rpartition("=")
    (pattern,) = check_patterns(pattern)
    found: dict[str, Any] = {}
    for limit in limits.split("+"):
        name, value = _read_limit(limit)
        if name in found:
            raise ValueError
        found[name] = value
    return pattern, Retention(**{"events": None, **found})


def _read_limit(text: str) -> tuple[str, float]:
    if age := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return "age", float(age[1]) * _SECONDS[age[2]]
    return ("events", int(text)) if text.isdecimal() else ("bytes", int(_BYTES.validate_python(text)))


def _pattern(value: str) -> str:
    try:
        check_patterns(value)
    except InvalidTopicError:
        raise ValueError from None
    return value


def _rule(value: str) -> str:
    try:
        read_rule(value)
    except InvalidTopicError:
        raise ValueError from None
    return value


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError
    return value


def _root_path(value: str | None) -> str | None:
    path = (value or "").rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
        raise ValueError
    return path or None


def _words(value: Any) -> Any:
    return [] if value is None else value.replace(",", " ").split() if isinstance(value, str) else value


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError
    return value


def _network(value: str) -> str:
    ip_network(value, strict=False)
    return value


Host = Annotated[str, AfterValidator(_host)]
Network = Annotated[str, AfterValidator(_network)]
Origin = Annotated[str, AfterValidator(_origin)]
PatternList = Annotated[list[Annotated[str, AfterValidator(_pattern)]], BeforeValidator(_several)]
Algorithm = Literal[
    "HS256",
    "HS384",
    "HS512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "ES256K",
    "EdDSA",
]
Limit = Annotated[T | None, BeforeValidator(_none)]


def _setting(default: Any, expected: str, **bounds: Any) -> Any:
    return Field(default, json_schema_extra={"expected": expected}, **bounds)


class Settings(BaseModel):
    """Settings of a server. Each is a flag of ``tickertape serve``, an environment variable and a key of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    host: str = _setting("127.0.0.1", "an address", min_length=1)
    port: int = _setting(8000, "an integer from 0 to 65535", ge=0, le=65535)
    uds: Limit[Path] = _setting(None, "the path of a Unix socket, or none")
    root_path: Annotated[Limit[str], AfterValidator(_root_path)] = _setting(None, "a path such as /live, or none")
    tls_cert: Limit[Path] = _setting(None, "the path of a certificate in PEM, or none")
    tls_key: Limit[Path] = _setting(None, "the path of a private key in PEM, or none")
    broker: str = _setting(DEFAULT_BROKER, "the URL of a broker", min_length=1)
    workers: int = _setting(1, "an integer of 1 or more", ge=1)
    retention_events: Limit[int] = _setting(DEFAULT_RETENTION.events, "an integer of 1 or more, or none", ge=1)
    retention_bytes: Limit[ByteSize] = _setting(
        DEFAULT_RETENTION.bytes, "a number of bytes (67108864, 64MiB), or none", ge=1
    )
    retention_age: Limit[float] = _setting(DEFAULT_RETENTION.age, "a number of seconds over 0, or none", gt=0)
    retention_topic: Annotated[list[Annotated[str, AfterValidator(_rule)]], BeforeValidator(_several)] = _setting(
        [], "rules such as metrics/**=60s, audit/**=90d+1GiB or cursors/*=1000"
    )
    heartbeat: Limit[float] = _setting(DEFAULT_HEARTBEAT, "a number of seconds over 0, or none", gt=0)
    send_timeout: Limit[float] = _setting(DEFAULT_SEND_TIMEOUT, "a number of seconds over 0, or none", gt=0)
    retry: float = _setting(DEFAULT_RETRY, "a number of seconds over 0", gt=0)
    max_event_size: ByteSize = _setting(DEFAULT_MAX_EVENT_SIZE, "a number of bytes (1048576, 1MiB)", ge=1)
    max_topics: int = _setting(MAX_TOPICS, "an integer of 1 or more", ge=1)
    drain_window: float = _setting(DEFAULT_DRAIN_WINDOW, "a number of seconds, 0 or more", ge=0)
    cors_origin: Annotated[list[Origin], BeforeValidator(_several)] = _setting(
        [], "origins such as https://example.org, or *"
    )
    cors_credentials: bool = _setting(False, "true or false")
    cors_max_age: int = _setting(DEFAULT_MAX_AGE, "an integer of seconds, 0 or more", ge=0)
    allowed_hosts: Annotated[list[Host], BeforeValidator(_words)] = _setting(
        [], "names such as hub.example.org or *.example.org, or *"
    )
    trusted_proxies: Annotated[list[Network], BeforeValidator(_words)] = _setting(
        [], "addresses or networks such as 10.0.0.0/8"
    )
    head_timeout: Limit[float] = _setting(_LIMITS.head_timeout, _TIME, gt=0)
    body_timeout: Limit[float] = _setting(_LIMITS.body_timeout, _TIME, gt=0)
    body_rate: Limit[ByteSize] = _setting(_LIMITS.body_rate, _SIZE, ge=1)
    keep_alive: float = _setting(_LIMITS.keep_alive, "a number of seconds over 0", gt=0)
    max_head_size: ByteSize = _setting(_LIMITS.max_head_size, "a number of bytes of 1024 or more", ge=1024)
    max_headers: int = _setting(_LIMITS.max_headers, "an integer of 10 or more", ge=10)
    max_body_memory: Limit[ByteSize] = _setting(_LIMITS.max_body_memory, _SIZE, ge=1)
    max_answer_memory: Limit[ByteSize] = _setting(_LIMITS.max_answer_memory, _SIZE, ge=1)
    max_batch: int = _setting(_LIMITS.max_batch, "an integer of 1 or more", ge=1)
    max_values: Limit[int] = _setting(_LIMITS.max_values, _COUNT, ge=1)
    max_digits: int = _setting(_LIMITS.max_digits, f"an integer from 1 to {MAX_DIGITS}", ge=1, le=MAX_DIGITS)
    max_history_bytes: ByteSize = _setting(_LIMITS.max_history_bytes, "a number of bytes (1048576, 1MiB)", ge=1)
    client_connections: Limit[int] = _setting(_LIMITS.client_connections, _COUNT, ge=1)
    max_streams: Limit[int] = _setting(_LIMITS.max_streams, _COUNT, ge=1)
    client_streams: Limit[int] = _setting(_LIMITS.client_streams, _COUNT, ge=1)
    stream_rate: Limit[float] = _setting(_LIMITS.stream_rate, _RATE, gt=0)
    client_stream_rate: Limit[float] = _setting(_LIMITS.client_stream_rate, _RATE, gt=0)
    publish_rate: Limit[float] = _setting(_LIMITS.publish_rate, _RATE, gt=0)
    client_publish_rate: Limit[float] = _setting(_LIMITS.client_publish_rate, _RATE, gt=0)
    publish_bytes: Limit[ByteSize] = _setting(_LIMITS.publish_bytes, _SIZE, ge=1)
    client_publish_bytes: Limit[ByteSize] = _setting(_LIMITS.client_publish_bytes, _SIZE, ge=1)
    publish_wait: Limit[float] = _setting(_LIMITS.publish_wait, _TIME, gt=0)
    open: bool = _setting(False, "true or false")
    jwt_key_file: Limit[str] = _setting(None, "a file with a secret or a public key, or none", min_length=1)
    jwks_url: Limit[str] = _setting(
        None, "a URL that starts with https:// or http://, or none", pattern=r"^https?://\S+$"
    )
    jwt_algorithm: Annotated[list[Algorithm], BeforeValidator(_several)] = _setting(
        [], "algorithms such as HS256, RS256, ES256 or EdDSA"
    )
    jwt_issuer: Limit[str] = _setting(None, "the issuer of tokens, or none", min_length=1)
    jwt_audience: Limit[str] = _setting(None, "the audience of tokens, or none", min_length=1)
    jwt_leeway: float = _setting(DEFAULT_LEEWAY, "a number of seconds from 0 to 3600", ge=0, le=3600)
    jwt_claim: str = _setting(DEFAULT_CLAIM, "the name of a claim", min_length=1)
    jwt_subscribe: PatternList = _setting([], "topic patterns")
    jwt_publish: PatternList = _setting([], "topic patterns")
    api_key_file: Limit[str] = _setting(None, "a file of API keys, or none", min_length=1)
    ticket_secret_file: Limit[str] = _setting(None, "a file with a secret, or none", min_length=1)
    cookie: Limit[str] = _setting(None, "the name of a cookie, or none", pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
    anonymous_subscribe: PatternList = _setting([], "topic patterns")
    anonymous_publish: PatternList = _setting([], "topic patterns")
    max_age: Limit[float] = _setting(None, "a number of seconds over 0, or none", gt=0)
    metrics: Audience = _setting("admin", "one of 'open', 'admin', 'off'")
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", "one of 'debug', 'info', 'warning', 'error'"
    )
    log_format: Literal["text", "json"] = _setting("text", "'text' or 'json'")
    access_log: bool = _setting(False, "true or false")

    @property
    def limits(self) -> Limits:
        """The limits for clients, which are settings by the same names."""
        given = {name: getattr(self, name) for name in Limits._fields}
        return Limits(**{**given, "trusted_proxies": tuple(self.trusted_proxies)})

    @property
    def retention(self) -> Retention:
        """The part of the log that is kept."""
        return Retention(
            events=self.retention_events,
            bytes=None if self.retention_bytes is None else int(self.retention_bytes),
            age=self.retention_age,
            topics=[read_rule(rule) for rule in self.retention_topic],
        )

    @property
    def certificate(self) -> Certificate | None:
        """The files of the TLS certificate; ``None`` to serve plain HTTP."""
        return None if self.tls_cert is None or self.tls_key is None else Certificate(self.tls_cert, self.tls_key)

    @property
    def has_access(self) -> bool:
        """True if access is controlled."""
        return any(getattr(self, name) for name in _CREDENTIALS)

    @property
    def hub_options(self) -> dict[str, Any]:
        """The settings that are options of :class:`~tickertape.Hub` by the same name."""
        return {name: getattr(self, name) for name in OF_THE_HUB}


class _Given(NamedTuple):
    """A value as it was given, and its source as an error names it."""

    value: Any
    source: str


def load_settings(flags: Mapping[str, Any], file: Path | None = None) -> Settings:
    """Return the settings: from ``flags``, else from the environment, else from ``file``, else the default.

    Arguments:
        flags: the settings on the command line, by name.
        file: a TOML file with the settings by name.

    Raises:
        SettingsError: a value is invalid, a key is unknown, or the file cannot be read.
    """
    given = {name: _Given(value, str(file)) for name, value in ({} if file is None else _read(file)).items()}
    given |= _from_environment()
    given |= {name: _Given(value, "--" + name.replace("_", "-")) for name, value in flags.items()}

    def source_of(name: str) -> str:
        return given[name].source if name in given else "the defaults"

    try:
        settings = Settings(**{name: value for name, (value, _) in given.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise SettingsError(f"{_mistake(name, first['input'])} (from {source_of(name)})") from None
    if (settings.tls_cert is None) != (settings.tls_key is None):
        given_one, missing = ("tls_cert", "tls_key") if settings.tls_key is None else ("tls_key", "tls_cert")
        raise SettingsError(f"expected {missing} beside {given_one} (from {source_of(given_one)})")
    try:
        create_broker(settings.broker)
    except (BrokerError, ValueError) as error:
        raise SettingsError(f"{error} (from {source_of('broker')})") from None
    if settings.cors_credentials and "*" in settings.cors_origin:
        raise SettingsError(
            "expected cors_origin to name the origins that may send credentials, got '*' "
            f"(from {source_of('cors_origin')})"
        )
    if settings.workers > 1 and settings.broker.startswith(_ONE_PROCESS):
        raise SettingsError(
            f"the log of the broker {settings.broker} lives in one process: expected workers to be 1, "
            f"got {settings.workers} (from {source_of('workers')})"
        )
    _check_access(settings, source_of)
    return settings


def _check_access(settings: Settings, source_of: Callable[[str], str]) -> None:
    """Refuse settings of access that contradict each other, or without which others mean nothing."""
    has_tokens = settings.jwt_key_file or settings.jwks_url
    if settings.jwt_key_file and settings.jwks_url:
        raise SettingsError(f"expected jwt_key_file or jwks_url, got both (from {source_of('jwks_url')})")
    for name in _NEEDS_TOKENS:
        if getattr(settings, name) and not has_tokens:
            raise SettingsError(f"{name} needs jwt_key_file or jwks_url (from {source_of(name)})")
    for name in ("cookie", "ticket_secret_file"):
        if getattr(settings, name) and not (has_tokens or settings.api_key_file):
            raise SettingsError(f"{name} needs jwt_key_file, jwks_url or api_key_file (from {source_of(name)})")
    if settings.open and settings.has_access:
        raise SettingsError(f"open contradicts the other settings of access (from {source_of('open')})")


def _from_environment() -> dict[str, _Given]:
    """Return the settings in environment variables, whose names match in any case; an empty one does not count."""
    names = {ENV_PREFIX + name.upper(): name for name in Settings.model_fields}
    variables = ((variable, value) for variable, value in os.environ.items() if value)
    return {names[key]: _Given(value, variable) for variable, value in variables if (key := variable.upper()) in names}


def _mistake(name: str, value: Any) -> str:
    field = Settings.model_fields.get(name)
    if field is None:
        near = difflib.get_close_matches(name, Settings.model_fields, 1)
        names = f"did you mean {near[0]!r}?" if near else f"the settings are {', '.join(Settings.model_fields)}"
        return f"unknown setting {name!r}: {names}"
    extra = field.json_schema_extra
    expected = extra["expected"] if isinstance(extra, dict) else "another value"
    secret = isinstance(value, str) and _MAY_BE_SECRET.search(value)
    return f"expected {name} to be {expected}, got {'a text that may contain a secret' if secret else repr(value)}"


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {file} (from --config): {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"{file} (from --config) is not valid TOML: {error}") from None
