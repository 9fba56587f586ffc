"""Load on an endpoint, and what can honestly be said about the answers."""
