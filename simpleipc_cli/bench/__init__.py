"""Load generation on an endpoint, its statistics, and its reports."""
