"""Tasks, feature files and images."""

from __future__ import annotations
