"""What talks to people and third parties: REST under /api/v1, GraphQL, and the way a request takes to a command."""
