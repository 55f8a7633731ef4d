"""Metrics, reliability, selective prediction, and what a comparison of engines leaves behind."""
