"""Search spaces: one folder a family of networks."""
