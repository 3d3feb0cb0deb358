"""The Markov chain, and the answers that it makes."""

from __future__ import annotations

import random
import re
from importlib.resources import files

import pytest

from tickertape.demo.assistant.generator import CHAIN, GeneratorError, MarkovChain, generate, words_of

TEXT = (files("tickertape.demo.assistant") / "text.txt").read_text("utf-8")
WORDS = TEXT.split()
TRIPLES = set(zip(WORDS, WORDS[1:], WORDS[2:], strict=False))


async def answer(question: str, seed: int) -> str:
    return "".join([word async for word in generate(question, pace=0, rng=random.Random(seed))])


@pytest.mark.parametrize("seed", range(20))
async def test_answer_follows_the_text(seed: int) -> None:
    """Each three words of a sentence are in the text, and the last one ends there."""
    text = await answer("How does a reader resume?", seed)
    sentences = re.findall(r"[^.]+\.", text)
    assert "".join(sentences) == text
    assert 1 <= len(sentences) <= 9
    assert len(set(sentences)) == len(sentences)
    for sentence in sentences:
        words = sentence.split()
        assert set(zip(words, words[1:], words[2:], strict=False)) <= TRIPLES
        assert len(words) <= 40


async def test_answer_is_random_and_repeatable() -> None:
    answers = [await answer("What is a run?", seed) for seed in range(10)]
    assert [await answer("What is a run?", seed) for seed in range(10)] == answers
    assert len(set(answers)) > 5


def test_question_chooses_the_beginning() -> None:
    chain = MarkovChain("A tape is long. Streams never rest at night. The log is short.")
    found = {chain.sentence("Are there STREAMS?", random.Random(seed)) for seed in range(10)}
    assert found == {"Streams never rest at night."}
    assert len({chain.sentence("What is this?", random.Random(seed)) for seed in range(30)}) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What is an Event stream?", {"event", "stream"}),
        ("Why do the readers wait", {"reader", "wait"}),
        ("?!", set()),
        ("is it", set()),
    ],
)
def test_words_of(text: str, words: set[str]) -> None:
    assert words_of(text) == words


def test_paragraphs() -> None:
    long = next(found for seed in range(50) if "\n\n" in (found := "".join(CHAIN.answer("log", random.Random(seed)))))
    assert "\n\n\n" not in long
    assert not long.startswith((" ", "\n"))


async def test_failure() -> None:
    words = generate("Please fail in the middle", pace=0)
    assert len([await anext(words) for _ in range(12)]) == 12
    with pytest.raises(GeneratorError, match="as you asked"):
        await anext(words)


def test_repr() -> None:
    assert repr(MarkovChain("One two three. Four.")) == "<MarkovChain 1 sentences, 1 pairs>"
