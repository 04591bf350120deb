"""Alarms: what devices raise and people must see. Rules, escalation and letters to people will stand here, too."""
