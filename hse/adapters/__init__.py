"""Adapters talk to machines: databases, brokers, mail. They know the domain; the domain does not know them."""
