"""`sipc send`."""
