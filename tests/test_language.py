"""Plain English in code, tests and documents: ordinary words, docstrings without question words, short test names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BANNED = {
    r"told|tells? (of|that|whether|what|how|who|which|where|why|it|them)": "report, log, notify, show",
    r"says? (so|nothing|what|who|whether|something)": "report, state, mean",
    r"say(?=[,:;.)])": "for example",
    r"by and by": "gradually",
    r"anew|once more": "again",
    r"in hand": "current",
    r"lets? go|letting go": "release, close",
    r"(takes?|took|taken|taking) note": "record",
    r"(is|are|was|were|be) taken for": "be treated as",
    r"whoever|those who|one who": "name them: a client that …",
    r"(?-i:Who) (comes|goes|waits|joins|leaves|asks|reads|is|has|may|wants)": "name them: a client that …",
    r"nobody|everybody|somebody": "name them: no client, every user, the caller",
    r"what (was|is|were|has been) (asked|given|kept|sent|missed|there|left|written|meant|stored|read|published)": (
        "name the thing: the missed events"
    ),
    r"(all|everything|nothing) that (is|was|comes|came|follows|has|had)": "name the thing: the missed events",
    r"behind (the|a|an|its|their|that) (cursor|offset|position|event|id|record|last|head|first|place)": "after",
    r"(go|goes|went|going) on": "continue, resume",
    r"(come|comes|came|coming) (back|again|of|to nothing)": "return, reconnect, result",
    r"gives? (out|back|way|what|those|nothing|every|each|all)|given out": "return, yield, assign",
    r"(is|are|was|were) to (be [a-z]+ed|come|go|stay|have)": "must, should, will",
    r"meanwhile": "name the period: while the client was away",
    r"(do|does) away with": "remove",
    r"an? [a-z]+ of (its|their|our) own|[a-z]+s of their own": "its own …, a separate …",
    r"none of (ours|its|their)|(is|are) (ours|theirs)|of ours": "our own, foreign",
    r"(former|another|next|earlier) li(fe|ves)": "before a restart, another epoch",
    r"for ever|for good": "permanently, without end",
    r"(that|it|which) (is|was) (?-i:none)|(it|that) is no (id|name|event|cursor|topic|address)": "is not a valid …",
    r"(stands?|stood) (in|below|at|between|beside|there|apart|still)": "is in, is stopped, hangs",
    r"however (many|long|often|much|large|slow)": "regardless of the number",
    r"on (its|their|the) way": "in transit, not sent yet",
    r"(cannot|can be|could be) had": "be read, be obtained",
    r"one's|oneself": "the user's",
    r"mend(s|ed|ing)?": "fix, repair",
    r"moment (when|at which)|of the moment|for the moment": "time; current",
    r"looks? (around|after what)": "check",
}
"""Phrases that readers stumble over, each with a replacement. h11, Starlette, httpcore and others hardly use them."""

FIRST_WORDS = re.compile(r"(What|Whose|Whom?|Whether|How|Where|Why|Which|Give|Tell|Say|Let)\b")
LONGEST_TEST_NAME = 50

BETWEEN_WORDS = r"[\s#/_]+"  # a phrase may span lines of a comment, or be a part of a name
PHRASES = [
    (re.compile(f"(?<![A-Za-z])({phrase.replace(' ', BETWEEN_WORDS)})(?![A-Za-z])", re.IGNORECASE), instead)
    for phrase, instead in BANNED.items()
]

FOLDERS = ("src", "tests", "bench", "docs")
EXCLUDED = {"_build", "node_modules"}
FILES = [
    path
    for path in sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*"))])
    if path.suffix in (".py", ".md", ".js", ".html") and path != Path(__file__) and not EXCLUDED & set(path.parts)
]


def phrases(text: str) -> Iterator[str]:
    """Report the banned phrases in the text of a file."""
    for pattern, instead in PHRASES:
        for found in pattern.finditer(text):
            yield f"line {text.count(chr(10), 0, found.start()) + 1}: {found[0]!r}; instead: {instead}"


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def names_of_tests(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node


def problems(text: str, *, code: bool) -> list[str]:
    found = list(phrases(text))
    if code:
        tree = ast.parse(text)
        found += [
            f"line {docstring.lineno}: a docstring begins with {first[0]!r}"
            for docstring in docstrings(tree)
            if (first := FIRST_WORDS.match(str(docstring.value).lstrip()))
        ]
        found += [
            f"line {test.lineno}: {test.name} has {len(test.name)} characters"
            for test in names_of_tests(tree)
            if len(test.name) > LONGEST_TEST_NAME
        ]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_language(path: Path) -> None:
    found = problems(path.read_text(), code=path.suffix == ".py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "# it goes\n# on",
        "def test_it_goes_on(): ...",
        '"Nobody reads."',
        '"""What one keeps."""',
        'x = 1\n"""Whether it is one."""',
        f"def test_{'a' * 46}(): ...",
    ],
)
def test_problems_are_found(text: str) -> None:
    assert len(problems(text, code=True)) == 1
