"""Posterior folders: what they hold, how they are written whole, and how a run goes on after a stop."""
