"""Transports: run commands and move files on a device. One file a transport."""
