"""Metrics, one file a convention: saliency figures of different papers are not comparable without its name."""
