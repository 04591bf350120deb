"""GraphQL: the same commands, queries and permissions behind another skin."""
