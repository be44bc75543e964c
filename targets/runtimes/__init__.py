"""Runtimes: each turns a model into an artifact, loads it and times it. One file a runtime."""
