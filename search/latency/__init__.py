"""Latency of architectures on a device: measured blocks, a predictor fitted to them, and what both promise."""
