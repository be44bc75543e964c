"""Fixtures of all tests of this floor."""

from tests.targets.postgres import postgres as postgres
