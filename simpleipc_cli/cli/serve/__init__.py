"""The verb `serve`."""
