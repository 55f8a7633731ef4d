"""The notebooks as pairs of files: NN_name.py, which git and people read, and NN_name.ipynb for Jupyter.

Either may be edited (``jupytext --sync`` carries changes over, as the header of each asks). Kept here is that
both hold the same cells, and that the .ipynb holds no output.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from bayes_clip.storage.files import written_whole

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CELL_SECONDS = 600
QUIET = ["--log-level=ERROR"]  # the kernel warns of its own sockets, which are local and signed


def scripts() -> list[Path]:
    """The py:percent halves, in reading order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def other_half(script: Path) -> Path:
    """The .ipynb beside a script."""
    return script.with_suffix(".ipynb")


def cells(notebook: NotebookNode) -> list[tuple[str, str]]:
    """Kind and source of every cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def read(path: Path) -> NotebookNode:
    """Either half as a notebook."""
    return jupytext.read(path)


def has_output(notebook: NotebookNode) -> bool:
    """Whether any cell holds an output, or a count of how often it was run."""
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    return any(cell.outputs or cell.execution_count is not None for cell in code)


def pair(script: Path) -> bool:
    """Write the .ipynb of a script, without outputs; False where it holds these cells already."""
    half, notebook = other_half(script), read(script)
    if half.exists():
        there = read(half)
        if cells(there) == cells(notebook) and not has_output(there):
            return False
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # not drawn at random, so that a diff shows what changed
    with written_whole(half) as temporary:
        nbformat.write(notebook, temporary)
    return True


def execute(script: Path, out: Path) -> float:
    """Run a script's notebook from top to bottom, write what came of it to `out`, and say how long it took.

    It runs in a folder of its own. What ran before an error is written too.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = read(script)
    out.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with TemporaryDirectory() as folder, _surroundings(Path(folder)):
        work = Path(folder) / "work"
        work.mkdir()
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(work)}},
            extra_arguments=QUIET,
        )
        try:
            client.execute()
        finally:
            with written_whole(out) as temporary:
                nbformat.write(notebook, temporary)
    return time.perf_counter() - start


@contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    """For kernels started meanwhile: this checkout's package, one thread each, and no files left at home."""
    wanted = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
