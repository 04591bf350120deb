"""Users and what they prove themselves with, roles and what they hold, invitations, keys, and the audit log."""
