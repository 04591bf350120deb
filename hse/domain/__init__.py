"""What the business decides, with the standard library only: no database, no sockets, no clock, no randomness."""
