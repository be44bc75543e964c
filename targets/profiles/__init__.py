"""Per-op profiles: one parser a tool layout, and the join from runtime op to source module."""
