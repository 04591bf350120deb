"""Partner companies, organisations, establishments and their areas: who owns what, and where it stands."""
