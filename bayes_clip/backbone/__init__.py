"""Frozen open_clip encoders."""

from __future__ import annotations
