"""The programs of the pages about runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from playwright.async_api import Browser, expect

from support.browser import open_tab
from support.command import Command
from support.npm import installed
from support.page_program import run_program, serve_page
from support.pages import files_of
from support.runs_app import ARGUMENTS
from support.servers import serve, until
from support.upstream_app import WORDS as ANSWER
from tickertape import Decoder
from tickertape.testing import EventStream, EventStreamClient

QUESTION = {"id": "a", "text": "what is a run?"}
WORDS = ["You ", "asked: ", "what ", "is ", "a ", "run? "]


async def data_of(stream: EventStream) -> list[str]:
    """Return the text of a run's events until its end, and how it ended."""
    found: list[str] = []
    while (event := await stream.next_event()).event != "stream:end":
        found.append(str(event.data))
    return [*found, event.json()["reason"]]


async def test_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "app"}
    exec(files_of("how-to/runs")["app.py"], names)
    async with EventStreamClient(names["app"]) as client, asyncio.timeout(30):
        assert (await client.get("/chat/1")).status == 204
        async with client.open("/chat/1", method="POST", json=QUESTION) as asked:
            assert (await asked.next_event()).data == WORDS[0]
            async with client.open("/chat/1") as joined:
                assert await data_of(joined) == [*WORDS, "done"]
            assert await data_of(asked) == [*WORDS[1:], "done"]
        async with client.open("/chat/1", method="POST", json=QUESTION) as again:
            assert await data_of(again) == [*WORDS, "done"]
        async with client.open("/chat/1", method="POST", json={"id": "b", "text": "word " * 1000}) as asked:
            await asked.next_event()
            stopped = await client.post("/chat/1/stop")
            assert stopped.status == 202
            assert (await data_of(asked))[-1] == "cancelled"


# The page about models.


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """The address of a substitute for a language model."""
    with serve("uvicorn-httptools", "support.upstream_app:app") as server:
        yield f"http://127.0.0.1:{server.address}"


def counts_of(model: str) -> dict[str, int]:
    found: dict[str, int] = httpx2.get(f"{model}/counts").json()
    return found


async def wait_for_closed(model: str, count: int) -> None:
    await until(lambda: counts_of(model)["closed"] == count, lambda: f"{count} requests to be closed")


def changes_for(model: str) -> dict[str, str]:
    return {
        "AsyncOpenAI()": f"AsyncOpenAI(base_url='{model}/v1', api_key='x')",
        "AsyncAnthropic()": f"AsyncAnthropic(base_url='{model}', api_key='x')",
    }


def words_of(url: str) -> tuple[list[str], dict[str, Any]]:
    """Return the words of an answer, and its end."""
    events = Decoder().feed(httpx2.get(url).content)
    return [str(event.data) for event in events if event.event is None and event.data], events[-1].json()


@pytest.mark.asyncio(loop_scope="session")
async def test_chat_with_a_model(browser: Browser, model: str, tmp_path: Path) -> None:
    with serve_page("how-to/llm", "app:app", tmp_path, changes=changes_for(model)) as [site]:
        url = f"http://127.0.0.1:{site.port}"
        before = counts_of(model)
        for number, kind in enumerate(["openai", "anthropic"], 1):
            question = {"id": "a", "text": "What is a run?", "model": kind}
            first, again = (httpx2.post(f"{url}/chat/{kind}", json=question).json() for _ in range(2))
            assert first == again
            words, end = words_of(f"{url}/chat/{kind}")
            assert (words, end["reason"]) == ([*ANSWER], "done")
            assert counts_of(model)["requests"] == before["requests"] + number
            httpx2.post(f"{url}/chat/{kind}", json={"id": "b", "text": "fail", "model": kind})
            assert words_of(f"{url}/chat/{kind}")[1]["message"] == "The model failed. Ask again."
        closed = counts_of(model)["closed"]
        async with open_tab(browser) as tab:
            answer, state = tab.page.locator("#answer"), tab.page.get_by_role("status")
            await tab.page.goto(url)
            await tab.page.get_by_label("Question").fill("wait")
            await tab.page.keyboard.press("Enter")
            await expect(answer).to_have_text("A run is a ")
            await tab.page.reload()
            await expect(answer).to_have_text("A run is a ")
            await tab.page.get_by_role("button", name="Stop").click()
            await expect(state).to_have_text("The run was cancelled.")
            assert tab.own_errors == []
        await wait_for_closed(model, closed + 1)


async def test_stop_closes_the_request_to_the_model(model: str, tmp_path: Path) -> None:
    with serve_page("how-to/llm", "app:app", tmp_path, changes=changes_for(model)) as [site]:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{site.port}") as client:
            for kind in ("openai", "anthropic"):
                before = counts_of(model)
                await client.post(f"/chat/{kind}", json={"id": "a", "text": "wait", "model": kind})
                async with client.stream("GET", f"/chat/{kind}") as answer:
                    lines = answer.aiter_lines()
                    while f"data: {ANSWER[-2]}".strip() != (await anext(lines)).strip():
                        pass
                    assert counts_of(model)["closed"] == before["closed"]
                    assert (await client.post(f"/chat/{kind}/stop")).status_code == 204
                    assert [line async for line in lines if line.startswith("event:")] == ["event: stream:end"]
                await wait_for_closed(model, before["closed"] + 1)


def test_gateway(model: str, tmp_path: Path) -> None:
    with serve_page("how-to/llm", "gateway:app", tmp_path, changes=changes_for(model)) as [site]:
        before = counts_of(model)["requests"]
        assert run_program(tmp_path, "client.py") == ["".join(ANSWER)]
        assert counts_of(model)["requests"] == before + 1
        url = f"http://127.0.0.1:{site.port}"
        headers = {"Idempotency-Key": "key-1"}
        question: Any = [{"role": "user", "content": "tool"}]
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0)
        for _ in range(2):
            with client.chat.completions.stream(model="m", messages=question, extra_headers=headers) as chat:
                (choice,) = chat.get_final_completion().choices
            assert choice.message.tool_calls is not None
            assert choice.message.tool_calls[0].function.arguments == "".join(ARGUMENTS)
            assert choice.finish_reason == "tool_calls"
        other = anthropic.Anthropic(base_url=url, api_key="x", max_retries=0)
        for _ in range(2):
            with other.messages.stream(model="m", max_tokens=9, messages=question, extra_headers=headers) as stream:
                (block,) = stream.get_final_message().content
            assert block.type == "tool_use"
            assert block.input == json.loads("".join(ARGUMENTS))
        assert counts_of(model)["requests"] == before + 3


# The pages about clients in JavaScript.


@pytest.mark.asyncio(loop_scope="session")
async def test_ai_sdk(browser: Browser, pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """`useChat` in a browser: a tool call, a reload in the middle of an answer, a second tab, and a stop."""
    packages = installed(pytestconfig) / "node_modules"
    (tmp_path / "node_modules").symlink_to(packages)
    command = "main.tsx --bundle --format=esm --jsx=automatic --outfile=public/main.js"
    assert f"npx esbuild {command}" in (Path(__file__).parents[2] / "docs/how-to/ai-sdk.md").read_text("utf-8")
    with serve_page("how-to/ai-sdk", "app:app", tmp_path, changes={"sleep(0.1)": "sleep(0.3)"}) as [site]:
        built = await asyncio.create_subprocess_exec(packages / ".bin/esbuild", *command.split(), cwd=tmp_path)
        assert await built.wait() == 0
        async with open_tab(browser) as tab:
            page = tab.page
            await page.goto(f"http://127.0.0.1:{site.port}")
            await expect(page.get_by_role("status")).to_have_text("ready")
            await page.get_by_label("Question").fill("one two")
            await page.keyboard.press("Enter")
            await expect(page.locator(".user")).to_have_text("one two")
            await expect(page.locator(".assistant code")).to_have_text("output-available: 2")
            await expect(page.locator(".assistant p")).to_have_text("You wrote 2 words: one two ")
            await expect(page.get_by_role("status")).to_have_text("ready")
            await page.get_by_label("Question").fill(" ".join(["word"] * 100))
            await page.keyboard.press("Enter")
            await expect(page.locator(".assistant p").last).to_contain_text("You wrote 100 words: word")
            await page.reload()
            second = await page.context.new_page()
            await second.goto(page.url)
            for tab_page in (page, second):
                await expect(tab_page.locator(".assistant code")).to_have_text("output-available: 100")
                await expect(tab_page.locator(".assistant p")).to_contain_text("You wrote 100 words: word word word")
                await expect(tab_page.get_by_role("status")).to_have_text("streaming")
            await second.get_by_role("button", name="Stop").click()
            for tab_page in (page, second):
                await expect(tab_page.get_by_role("status")).to_have_text("ready")
            assert tab.own_errors == []


def test_ag_ui(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(installed(pytestconfig) / "node_modules")
    with serve_page("how-to/ag-ui", "app:app", tmp_path):
        done = subprocess.run(
            ["node", "client.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    *printed, messages = done.stdout.splitlines()
    expected = ["I look at the sky. ", "weather { place: 'Łódź' }", "It ", "is ", "clear. "]
    for name in ("first", "second"):
        assert [line for line in printed if line.startswith(name)] == [f"{name} {text}" for text in expected]
    assert json.loads(messages) == [
        ["user", "How is the weather?"],
        ["assistant", "I look at the sky. "],
        ["assistant", None],
        ["tool", "clear"],
        ["assistant", "It is clear. "],
    ]


# The page about long jobs.


@pytest.mark.asyncio(loop_scope="session")
async def test_progress(browser: Browser, tmp_path: Path) -> None:
    with serve_page("how-to/progress", "app:app", tmp_path, changes={"rows: 3000": "rows: 90000"}) as [site]:
        url = f"http://127.0.0.1:{site.port}"
        job = {"rows": 200}
        started = [httpx2.put(f"{url}/exports/42", json=job).json() for _ in range(2)]
        assert started == [{"events": "/exports/42", "joined": joined} for joined in (False, True)]
        with Command("listen", f"{url}/exports/42") as command:
            lines = [json.loads(command.line()) for _ in range(3)]
            assert [(line["event"], line["data"]) for line in lines] == [
                ("progress", {"done": 1, "of": 2}),
                ("progress", {"done": 2, "of": 2}),
                ("result", {"url": "/export.csv"}),
            ]
            end = json.loads(command.line())
            assert (end["event"], end["data"]["reason"]) == ("stream:end", "done")
            assert command.line() == ""
            assert command.process.wait(10) == 0
        async with open_tab(browser) as tab:
            bar, state = tab.page.get_by_label("Progress"), tab.page.get_by_role("status")
            await tab.page.goto(f"{url}/#42")
            await expect(state).to_have_text("Download")
            await tab.page.get_by_role("button", name="Start").click()
            await expect(bar).to_have_attribute("max", "900")
            value = await bar.evaluate("bar => bar.value")
            await tab.page.reload()
            await tab.page.wait_for_function("least => document.getElementById('bar').value > least", arg=value)
            await tab.page.get_by_role("button", name="Stop").click()
            await expect(state).to_have_text("Stopped.")
            assert tab.own_errors == []
