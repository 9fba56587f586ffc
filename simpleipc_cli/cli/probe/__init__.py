"""`sipc probe`."""
