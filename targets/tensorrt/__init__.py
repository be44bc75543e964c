"""TensorRT: flags by version, what trtexec writes, and the check that needs no GPU."""
