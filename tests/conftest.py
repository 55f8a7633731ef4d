"""Makes the modules of tests/support importable by every test: naive twins and small random problems."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
