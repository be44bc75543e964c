"""Virtual devices: a real sshd and a real adbd on loopback, for trying the kit and for CI without hardware."""
