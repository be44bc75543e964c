"""Floor 3: data, losses, metrics and training loops."""
