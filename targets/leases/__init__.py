"""Leases: one holder a device at a time, by lock files on one host or by rows of a database in a lab."""
