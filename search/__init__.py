"""Floor 2: architectures as data, latency models and searches."""
