"""Makes the modules of tests/support importable by every test: naive twins and small random problems."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "support"))
os.environ["BAYES_CLIP_CACHE"] = ""  # no test keeps features in the user's home
