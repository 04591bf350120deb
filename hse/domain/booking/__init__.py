"""Bookings: who stays in which area, from when to when; the guests, and what is free."""
