"""``tickertape demo --database … --queue …``: mistakes are reported before the server starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickertape.cli.demo import demo


@pytest.mark.parametrize(
    ("option", "url", "sentence"),
    [
        ("database", "mysql://host/db", "expected a database as postgresql://… or sqlite:///path, got mysql://…"),
        ("database", "sqlite:////no/such/folder/file", "file: unable to open database file"),
        ("database", "postgresql://127.0.0.1:1/test", "PostgreSQL: connection failed: "),
        ("queue", "nats://host", "expected a queue as nats://host/subject, got nats://host"),
        ("queue", "amqp://host/name", "expected a queue as nats://host/subject, got amqp://host"),
        ("queue", "nats://host/a..b", "expected a subject of tokens between dots, got 'a..b'"),
        ("queue", "nats://host/a?nonsense=1", "expected an option of nats:// (connect_timeout, creds, timeout), got"),
    ],
)
def test_invalid_url(option: str, url: str, sentence: str, tmp_path: Path) -> None:
    database, queue = (url, None) if option == "database" else (None, url)
    with pytest.raises(SystemExit) as raised:
        demo(port=0, data=tmp_path, database=database, queue=queue)
    message = str(raised.value)
    assert message.startswith(f"tickertape: {sentence}")
    assert message.endswith("; next step: tickertape demo --help")
    assert "\n" not in message
