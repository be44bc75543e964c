"""One script a claim: a ratio measured in one run, printed last; exit code 1 where the claim fails."""
