"""Many requests in one process: reads records, writes responses in the same order."""
