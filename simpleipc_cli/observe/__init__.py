"""Count and trace what passes a stream, without changing it."""
