"""Count and trace the bytes of a stream, without changing them."""
