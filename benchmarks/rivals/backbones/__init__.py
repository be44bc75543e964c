"""Backbones that several rivals share."""
