"""The device registry: who may connect, with which token, and which gateway speaks for whom."""
