"""Other projects' latency measurements, read into this kit's tables; a damaged line is an error that quotes it."""
