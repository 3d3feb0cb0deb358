"""Benchmarks, and the fuzzer; development only.

A benchmark is a module of this package with a docstring and a ``main()`` that prints a table of ratios:
a peer's time over ours, measured in turns within one run, since a time alone says more about the machine.
"""
