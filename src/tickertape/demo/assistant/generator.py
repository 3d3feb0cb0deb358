"""A small generator of text: a Markov chain over one page of text, in the place of a language model."""

from __future__ import annotations

import asyncio
import random
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from importlib.resources import files
from itertools import islice
from typing import Final

PACE: Final = 0.06
"""Seconds between two words: about as fast as a language model writes."""

_SENTENCES: Final = (5, 9)
"""The least and the largest number of sentences in an answer."""

_LONGEST_SENTENCE: Final = 40
"""Words in a sentence. A longer one is discarded, and another one is made."""

_PARAGRAPH: Final = 3
"""Sentences in a paragraph."""

_WORDS_BEFORE_FAILURE: Final = 12
"""Words of an answer that fails: enough to see that it began."""

_WORD: Final = re.compile(r"\w{3,}")

_COMMON: Final = frozenset(
    _WORD.findall("about and are but can does for has how its not that the then this was what when why with you")
)
"""Words of a question that do not choose the beginning of an answer."""


class GeneratorError(Exception):
    """The generator failed, because the question asked for it."""


class MarkovChain:
    """Sentences in which each word follows the two words before it somewhere in a text.

    Arguments:
        text: sentences that end with a full stop.
    """

    def __init__(self, text: str) -> None:
        self._following: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._beginnings: list[tuple[str, str]] = []
        self._by_word: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for sentence in re.findall(r"[^.]+\.", text):
            words = sentence.split()
            if len(words) < 3:
                continue
            beginning = (words[0], words[1])
            self._beginnings.append(beginning)
            for word in words_of(sentence):
                self._by_word[word].append(beginning)
            for first, second, third in zip(words, words[1:], words[2:], strict=False):
                self._following[first, second].append(third)

    def __repr__(self) -> str:
        return f"<MarkovChain {len(self._beginnings)} sentences, {len(self._following)} pairs>"

    def sentence(self, about: str, rng: random.Random) -> str:
        """Return a sentence. Its beginning is from a sentence with a word of ``about``, if there is one."""
        known = [self._by_word[word] for word in sorted(words_of(about)) if word in self._by_word]
        while True:
            words = [*rng.choice(rng.choice(known) if known else self._beginnings)]
            while not words[-1].endswith(".") and len(words) < _LONGEST_SENTENCE:
                words.append(rng.choice(self._following[words[-2], words[-1]]))
            if words[-1].endswith("."):
                return " ".join(words)

    def answer(self, question: str, rng: random.Random) -> Iterator[str]:
        """Yield the words of an answer, each with the space or the empty line before it."""
        earlier: set[str] = set()
        for number in range(rng.randint(*_SENTENCES)):
            # Only the first paragraph begins with the words of the question: there are few such sentences.
            sentence = self.sentence(question if number < _PARAGRAPH else "", rng)
            if sentence in earlier:
                continue
            earlier.add(sentence)
            before = "" if number == 0 else "\n\n" if number % _PARAGRAPH == 0 else " "
            for word in sentence.split():
                yield before + word
                before = " "


def words_of(text: str) -> set[str]:
    """Return the words of a text that choose a sentence, without plural endings."""
    return {word.removesuffix("s") for word in _WORD.findall(text.casefold()) if word not in _COMMON}


CHAIN: Final = MarkovChain((files(__package__) / "text.txt").read_text("utf-8"))


async def generate(question: str, *, pace: float = PACE, rng: random.Random | None = None) -> AsyncGenerator[str]:
    """Yield the words of an answer, one at a time.

    Arguments:
        question: its words choose the first sentences. The word "fail" makes the answer fail after some words.
        pace: seconds between two words.
        rng: the source of randomness.

    Raises:
        GeneratorError: the question has the word "fail".
    """
    fails = "fail" in words_of(question)
    words = CHAIN.answer(question, rng or random.Random())
    for word in islice(words, _WORDS_BEFORE_FAILURE if fails else None):
        await asyncio.sleep(pace)
        yield word
    if fails:
        raise GeneratorError("The generator failed in the middle of this answer, as you asked.")
