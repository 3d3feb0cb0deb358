"""Count the work that a module does, in steps and in bytes: the same on every run and every machine.

Time cannot show in a test whether an algorithm is linear, because a busy machine looks the same as a
quadratic loop. So the module's source is loaded a second time, with a toll wherever a buffer may be
read or copied:

- a statement costs 1;
- a call pays for each buffer that it is made on, is given, or returns: ``text.find(x)``;
- a slice, a sum and an f-string pay for what they make, ``in`` for what it looks through;
- ``+=`` pays for what is added, and on an immutable buffer for all that it copies as well.

A regular expression pays for its text once; that it does not go back and forth has to follow from how
it is written.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["Meter"]

CONSTANT_TIME = {"append", "endswith", "isinstance", "len", "memoryview", "startswith"}
"""Calls whose time does not depend on the length of the buffer."""


class Meter:
    """Load a fresh copy of the module ``name``, metered; ``work`` counts up as it runs.

    The copy imports what the original imports, and is nowhere imported itself.
    """

    def __init__(self, name: str) -> None:
        self.work = 0
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            function.body = [toll for statement in function.body for toll in _Tolls().visit(statement)]
        self.module = ModuleType(name)
        vars(self.module).update(
            __package__=spec.parent,
            _pay=self._pay,
            _pay_step=self._pay_step,
            _pay_call=self._pay_call,
            _pay_added=self._pay_added,
        )
        exec(compile(ast.fix_missing_locations(tree), spec.origin, "exec"), vars(self.module))

    def _pay(self, value: Any) -> Any:
        if isinstance(value, (bytes, bytearray, str)):
            self.work += len(value)
        return value

    def _pay_step(self) -> None:
        self.work += 1

    def _pay_call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        if function.__name__ in CONSTANT_TIME:
            return function(*arguments, **options)
        for given in (getattr(function, "__self__", None), *arguments, *options.values()):
            self._pay(given)
        return self._pay(function(*arguments, **options))

    def _pay_added(self, target: Any, added: Any) -> Any:
        if not isinstance(target, bytearray):
            self._pay(target)
        return self._pay(added)


class _Tolls(ast.NodeTransformer):
    """Add the counters to the statements of one function; inner functions are handled separately."""

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.FunctionDef):
            return [node]
        visited = super().visit(node)
        return [ast.Expr(_call("_pay_step")), visited] if isinstance(visited, ast.stmt) else visited

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        return _call("_pay_call", node.func, *node.args, keywords=node.keywords)

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        self.generic_visit(node)
        if isinstance(node.ops[0], (ast.In, ast.NotIn)):
            node.comparators[0] = _call("_pay", node.comparators[0])
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        self.generic_visit(node)
        return _call("_pay", node) if isinstance(node.ctx, ast.Load) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.Call:
        self.generic_visit(node)
        return _call("_pay", node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.Call:
        self.generic_visit(node)
        return _call("_pay", node)

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AugAssign:
        self.generic_visit(node)
        before = ast.parse(ast.unparse(node.target), mode="eval").body
        node.value = _call("_pay_added", before, node.value)
        return node


def _call(name: str, *arguments: ast.expr, keywords: list[ast.keyword] | None = None) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), keywords or [])
