"""The verb `probe`."""
