"""Sign-in: names, cookies, and the JSON bodies of requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tickertape import Hub
from tickertape.demo.identity import MAX_NAMES, NAME_LIFETIME, Identities, load_secret
from tickertape.demo.site import Site
from tickertape.testing import EventStreamClient

JSON = {"content-type": "application/json"}


class Browser:
    """A client with a cookie."""

    def __init__(self, client: EventStreamClient) -> None:
        self._client = client
        self.cookie = ""

    async def request(self, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        headers = {**JSON, "cookie": self.cookie}
        content = b"" if body is None else json.dumps(body).encode()
        async with self._client.open("/session", method=method, headers=headers, body=content) as response:
            self.cookie = response.headers.get("set-cookie", self.cookie).partition(";")[0]
            return response.status, json.loads(await response.read())

    async def sign_in(self, name: Any) -> tuple[int, Any]:
        return await self.request("POST", {"name": name})


async def test_sign_in_and_out() -> None:
    async with EventStreamClient(Site(Hub(), [])) as client:
        ada, other = Browser(client), Browser(client)
        assert await ada.request() == (200, {"name": None})
        assert await ada.sign_in(" Ada ") == (200, {"name": "Ada"})
        assert await ada.request() == (200, {"name": "Ada"})
        assert await ada.sign_in("ada") == (200, {"name": "ada"})  # of the same browser
        status, problem = await other.sign_in("ADA")
        assert (status, problem["detail"]) == (409, "the name 'ADA' is taken: choose another one")
        assert await ada.sign_in("Eve") == (200, {"name": "Eve"})
        assert await other.sign_in("Ada") == (200, {"name": "Ada"})
        former = ada.cookie
        assert await ada.request("DELETE") == (200, {"name": None})
        assert await ada.request() == (200, {"name": None})
        ada.cookie = former  # of a request that was sent before
        assert await ada.request() == (200, {"name": None})
        assert await other.sign_in("Eve") == (200, {"name": "Eve"})


@pytest.mark.parametrize("name", ["", " ", None, 7, ["a"], "a" * 33, "a/b", "<b>", "a\nb", "-a", "a-", ".", "a\x00"])
async def test_invalid_names(name: Any) -> None:
    async with EventStreamClient(Site(Hub(), [])) as client:
        status, problem = await Browser(client).sign_in(name)
        assert status == 422
        assert problem["detail"].startswith("expected a name of 1 to 32 letters, digits, spaces, dots and dashes, got ")


@pytest.mark.parametrize("name", ["a", "Ada L.", "J.-P. Ω 小林", "o_o", "a" * 32])
async def test_valid_names(name: str) -> None:
    async with EventStreamClient(Site(Hub(), [])) as client:
        assert await Browser(client).sign_in(name) == (200, {"name": name})


async def test_forged_cookie() -> None:
    async with EventStreamClient(Site(Hub(), [])) as client:
        ada = Browser(client)
        await ada.sign_in("Ada")
        ada.cookie = ada.cookie[:-2] + ("AA" if not ada.cookie.endswith("AA") else "BB")
        assert await ada.request() == (200, {"name": None})


async def test_cookie_after_restart() -> None:
    async with EventStreamClient(Site(Hub(), [], secret="a")) as client:
        ada = Browser(client)
        await ada.sign_in("Ada")
    for secret, name in [("a", "Ada"), ("b", None)]:
        async with EventStreamClient(Site(Hub(), [], secret=secret)) as client:
            again = Browser(client)
            again.cookie = ada.cookie
            assert await again.request() == (200, {"name": name})


def test_unused_name_expires() -> None:
    now = 0.0
    identities = Identities(Hub(), now=lambda: now)
    assert identities.claim("Ada", "first")
    now = NAME_LIFETIME - 1
    assert not identities.claim("ada", "second")
    assert identities.claim("Ada", "first")
    now += NAME_LIFETIME - 1
    assert not identities.claim("ada", "second")
    now += 1
    assert identities.claim("ada", "second")
    identities.release("ADA", "first")
    assert not identities.claim("ada", "first")


def test_number_of_names_is_limited() -> None:
    identities = Identities(Hub())
    for number in range(MAX_NAMES + 1):
        assert identities.claim(f"name {number}", "first")
    assert repr(identities) == f"<Identities {MAX_NAMES} names>"
    assert identities.claim("name 0", "second")
    assert not identities.claim("name 2", "second")


def test_secret_is_stored(tmp_path: Path) -> None:
    secret = load_secret(tmp_path / "secret")
    assert len(secret) == 64
    assert load_secret(tmp_path / "secret") == secret
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("body", "headers", "status", "sentence"),
    [
        (b"{}", {}, 415, "expected a Content-Type of application/json, got none"),
        (b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415, "expected a Content-Type of"),
        (b"{", JSON, 400, "the body is not valid JSON: "),
        (b"\xff", JSON, 400, "the body is not valid JSON: "),
        (b"[1]", JSON, 422, "expected a JSON object, got [1]"),
        (b'{"name": "%s"}' % (b"a" * 70_000), JSON, 413, "the body is larger than 65536 bytes"),
    ],
)
async def test_invalid_body(body: bytes, headers: dict[str, str], status: int, sentence: str) -> None:
    async with (
        EventStreamClient(Site(Hub(), [])) as client,
        client.open("/session", method="POST", headers=headers, body=body) as response,
    ):
        assert response.status == status
        assert json.loads(await response.read())["detail"].startswith(sentence)
