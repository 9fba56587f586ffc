"""Many requests in one process: records in, responses out in the same order. Knows no click."""
