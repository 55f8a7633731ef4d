"""Runs the Triton kernels on the CPU: each `*_triton` module is loaded a second time, for the interpreter.

Triton decides when a kernel is defined whether it is to be interpreted or compiled. The copy that the
tests use is defined while TRITON_INTERPRET=1; the library's own module, and the variable, stay as they were,
so that nothing here depends on what was imported before or changes what runs after.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """name -> bayes_clip.kernels.<name> with its kernels run by Triton's interpreter."""
    triton = pytest.importorskip("triton")
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    for name in dir(triton.language):  # sum, zeros and their like are kernels too
        function = getattr(triton.language, name)
        if isinstance(function, JITFunction):
            monkeypatch.setattr(triton.language, name, InterpretedFunction(function.fn))

    def load(name: str) -> ModuleType:
        found = importlib.util.find_spec(f"bayes_clip.kernels.{name}")
        spec = importlib.util.spec_from_file_location(f"interpreted_{name}", found.origin)
        module = importlib.util.module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            spec.loader.exec_module(module)
        return module

    yield load
