"""The server: accepts connections and passes each request to a handler."""
