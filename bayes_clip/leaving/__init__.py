"""Leaving with a posterior: its predictive as a plain torch program and as ONNX, without bayes_clip."""
