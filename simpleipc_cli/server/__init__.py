"""Accepts connections and has each request answered by a handler it is handed."""
