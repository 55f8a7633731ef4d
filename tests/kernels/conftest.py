"""Runs the Triton kernels on the CPU: each `*_triton` module is loaded a second time, for the interpreter.

Triton decides when a kernel is defined whether it is to be interpreted or compiled. The copy that the
tests use is defined while TRITON_INTERPRET=1; the library's own module, and the variable, stay as they were.
The interpreter works by exchanging parts of triton.language and does not put all of them back: the fixture
does, so that nothing here depends on what was imported before or changes what runs after.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def interpreted() -> Iterator[Callable[[str], ModuleType]]:
    """name -> bayes_clip.kernels.<name> with its kernels run by Triton's interpreter."""
    language = pytest.importorskip("triton.language")
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    with put_back([language, language.core, language.math, language.standard]):
        for name, function in list(vars(language).items()):  # sum, zeros and their like are kernels too
            if isinstance(function, JITFunction):
                setattr(language, name, InterpretedFunction(function.fn))
        yield interpreted_copy


def interpreted_copy(name: str) -> ModuleType:
    """A copy of the module whose kernels were defined for the interpreter."""
    found = importlib.util.find_spec(f"bayes_clip.kernels.{name}")
    spec = importlib.util.spec_from_file_location(f"interpreted_{name}", found.origin)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        spec.loader.exec_module(module)
    return module


@contextmanager
def put_back(modules: list[ModuleType]) -> Iterator[None]:
    """The modules, and the classes in them, have the members afterwards that they had before.

    Names that were added to a module stay: functions that the interpreter has rewritten go on using them.
    """
    classes = [part for module in modules for part in vars(module).values() if inspect.isclass(part)]
    owners: dict[int, Any] = {id(owner): owner for owner in (*modules, *classes)}
    before = {place: dict(vars(owner)) for place, owner in owners.items() if mutable(owner)}
    try:
        yield
    finally:
        for place, members in before.items():
            owner = owners[place]
            for name in set(vars(owner)) - set(members) if inspect.isclass(owner) else ():
                delattr(owner, name)
            for name, member in members.items():
                if vars(owner).get(name) is not member:
                    setattr(owner, name, member)


def mutable(owner: Any) -> bool:
    """Whether Triton could have changed it: not a class of Python's own."""
    home = owner.__name__ if inspect.ismodule(owner) else owner.__module__
    return home.startswith("triton")
