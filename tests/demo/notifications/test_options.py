"""``tickertape demo --database … --queue …``: a mistake is told in a sentence before anything is served."""

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
def test_a_wrong_url_is_told(option: str, url: str, sentence: str, tmp_path: Path) -> None:
    database, queue = (url, None) if option == "database" else (None, url)
    with pytest.raises(SystemExit) as ended:
        demo(port=0, data=tmp_path, database=database, queue=queue)
    said = str(ended.value)
    assert said.startswith(f"tickertape: {sentence}")
    assert said.endswith("; next step: tickertape demo --help")
    assert "\n" not in said
