"""Drivers: how one session is run on one kind of device with one runtime. One file a way of running."""
