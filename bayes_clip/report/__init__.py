"""Figures, the HTML report, and the export to ArviZ."""
