"""API keys: the file, and what it allows."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tickertape.access import KEY_PREFIX, KeyFile, KeyFileError, add_key
from tickertape.errors import InvalidTopicError, UnauthorizedError
from tickertape.testing import FakeClock


async def test_add_and_verify(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    sensor = add_key(path, "sensor.7", publish=["sensors/7/**"], now=1000)
    reader = add_key(path, "reader", subscribe=["sensors/**", "a b/ü"], now=2000.9)
    admin = add_key(path, "admin", admin=True)
    keys = KeyFile(path)
    verified = await keys.verify(sensor)
    assert verified.grant.user == "sensor.7"
    assert verified.grant.publish == ("sensors/7/**",)
    assert not verified.grant.subscribe
    assert verified.issued == 1000
    assert (await keys.verify(reader)).grant.subscribe == ("a b/ü", "sensors/**")
    assert (await keys.verify(reader)).issued == 2000
    assert (await keys.verify(admin)).grant.admin
    text = path.read_text()
    for key in (sensor, reader, admin):
        assert key.startswith(KEY_PREFIX)
        assert len(key) > 40
        assert key not in text
        assert key.removeprefix(KEY_PREFIX) not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert repr(keys) == f"<KeyFile {path} keys=3>"


@pytest.mark.parametrize("token", ["ttk_", "ttk_unknown", "ttk_" + "\udc80", "ttk_" + "x" * 10_000])
async def test_unknown_key(tmp_path: Path, token: str) -> None:
    path = tmp_path / "keys.toml"
    add_key(path, "a", admin=True)
    with pytest.raises(UnauthorizedError, match="the API key is unknown"):
        await KeyFile(path).verify(token)


async def test_changed_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.toml"
    clock = FakeClock()
    first = add_key(path, "first", publish=["a"])
    keys = KeyFile(path, clock=clock.time)
    second = add_key(path, "second", publish=["b"])
    with pytest.raises(UnauthorizedError):
        await keys.verify(second)  # the file is looked at once a second
    clock.advance(1)
    assert (await keys.verify(second)).grant.user == "second"
    replace(path, path.read_text() + "nonsense")
    clock.advance(1)
    assert (await keys.verify(first)).grant.user == "first"
    assert "the keys before the change stay valid" in caplog.text
    path.unlink()
    clock.advance(1)
    assert (await keys.verify(first)).grant.user == "first"
    replace(path, "")
    clock.advance(1)
    with pytest.raises(UnauthorizedError):
        await keys.verify(first)


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)  # noqa: PTH105


HASH = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = 1", "expected 'a' in .* to be a table"),
        ("[a]", "expected hash of .a."),
        ('[a]\nhash = "secret"', "expected hash of .a. .* to be 'sha256:'"),
        (f'[a]\nhash = "{HASH}"\nrights = 1', "unknown field 'rights'"),
        (f'[a]\nhash = "{HASH}"\nsubscribe = "a"', "a list of strings"),
        (f'[a]\nhash = "{HASH}"\nsubscribe = ["a//b"]', "empty segments"),
        (f'[a]\nhash = "{HASH}"\nadmin = 1', "to be true or false"),
        (f'[a]\nhash = "{HASH}"\ncreated = "now"', "seconds since 1970"),
        (f'[a]\nhash = "{HASH}"\n[b]\nhash = "{HASH}"', "two keys"),
        ("[", "is not valid TOML"),
    ],
)
def test_broken_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(KeyFileError, match=sentence) as error:
        KeyFile(path)
    assert str(path) in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        KeyFile(tmp_path / "none.toml")


def test_mistakes_of_add_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    add_key(path, "a", admin=True)
    with pytest.raises(KeyFileError, match="already has a key"):
        add_key(path, "a")
    for name in ("", "a b", 'a"', "x" * 65):
        with pytest.raises(ValueError, match="expected a name of 1 to 64"):
            add_key(path, name)
    with pytest.raises(InvalidTopicError):
        add_key(path, "b", publish=["a//b"])
    with pytest.raises(KeyFileError, match="cannot write"):
        add_key(tmp_path / "none" / "keys.toml", "a")
