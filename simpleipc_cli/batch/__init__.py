"""Many requests in one process: records in, answers out in the same order. Knows no click."""
