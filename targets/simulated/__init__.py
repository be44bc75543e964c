"""Simulated devices: a roofline model of five real ones, with noise, heat and faults. Never a measurement."""
