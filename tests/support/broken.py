"""Ways to break the library on purpose, and how to run a check of another test module.

A `Break` names an identity, says in words what is broken, where, and which check must notice. To add one,
append a line to BREAKS in tests/oracles/test_oracles_can_fail.py.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Break:
    """One formula broken, and the check that must fail for it."""

    identity: str
    broken: str  # what is wrong, in words
    target: str  # dotted name of the function or method that is replaced
    instead: Callable[[Any], Callable[..., Any]]  # the right function -> the broken one
    check: str  # "inference/test_kalman.py::test_name"
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.identity}: {self.broken}"

    def run(self) -> None:
        """The check as in its own module; of a hypothesis test, the body with these arguments."""
        path, name = self.check.split("::")
        function = getattr(_module(path), name)
        body = getattr(function, "hypothesis", None)
        (body.inner_test if body else function)(**self.arguments)


@cache
def _module(path: str) -> ModuleType:
    """A test module by its path in tests/, imported once and before anything is broken."""
    name = "checks_of_" + path.replace("/", "_").removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, TESTS / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
