"""The room of the work behind the scenes."""
