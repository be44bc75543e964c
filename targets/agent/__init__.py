"""The program that times models on an SSH device, and how it gets there."""
