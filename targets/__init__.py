"""Floor 1: open devices, run models on them, and report what was measured (no torch)."""
