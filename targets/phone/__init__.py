"""Android phones: how the benchmark tool is called, what it prints, and the state the phone is in."""
