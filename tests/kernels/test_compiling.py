"""Every kernel compiles for a GPU of compute capability 9.0, also where there is none, and without TF32."""

from __future__ import annotations

import importlib

import pytest

COUNTS = {"features", "removed", "products", "first_product", "count", "classes", "start", "rank", "weights"}
FLOAT64 = {"parts", "plain", "scaled", "turn", "sites", "direction", "released", "along"}
KERNELS = [
    ("visit_triton", "visit_kernel", {"REMOVES": True, "MULTIPLIES": True, "PRODUCTS": 64}),
    ("recursion_triton", "advance_kernel", {"WIDTH": 64}),
    ("recursion_triton", "panel_kernel", {"ITERATED": True, "CLASSES": 1024, "AT_ONCE": 1024}),
    ("diagonal_triton", "condition_kernel", {}),
    ("low_rank_triton", "squares_kernel", {"RANK": 64}),
    ("low_rank_triton", "seen_kernel", {"RANK": 64, "ROWS": 64}),
    ("low_rank_triton", "turned_kernel", {"RANK": 64, "ROWS": 16}),
]
SHARED_BYTES = 227 * 1024  # that one program may take on compute capability 9.0


@pytest.mark.parametrize("file, name, options", KERNELS, ids=[name for _, name, _ in KERNELS])
def test_kernel_compiles(file, name, options, tmp_path, monkeypatch):
    triton = pytest.importorskip("triton", minversion="3.3")
    if triton.knobs.runtime.interpret:
        pytest.skip("TRITON_INTERPRET is set: nothing is compiled")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module = importlib.import_module(f"bayes_clip.kernels.{file}")
    kernel = getattr(module, name)
    constants = {
        part.name: options.get(part.name, getattr(module, part.name, None))
        for part in kernel.params
        if part.is_constexpr
    }

    def kind(part: str) -> str:
        if part in constants:
            return "constexpr"
        if part in COUNTS:
            return "i32"
        return "*i64" if part == "labels" else "*fp64" if part in FLOAT64 else "*fp32"

    signature = {part.name: kind(part.name) for part in kernel.params}
    source = ASTSource(kernel, signature, constexprs=constants)
    built = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8, "enable_fp_fusion": True}
    )
    code = built.asm["ptx"]
    assert "tf32" not in code
    if name == "visit_kernel":  # bound by arithmetic, if anything: see its tiles
        assert code.count("fma.rn.f32") > 3 * code.count("ld.shared") > 0
    assert built.metadata.shared <= SHARED_BYTES
