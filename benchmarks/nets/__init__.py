"""Networks that exist to be measured, not to be good at anything."""
