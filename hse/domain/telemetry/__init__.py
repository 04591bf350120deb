"""What devices reported: the read side of the events."""
