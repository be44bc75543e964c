"""Parts of :mod:`benchmarks.faults`: devices that can be harmed, the harm, and what is looked at afterwards."""
