"""GraphQL at /graphql: the same queries and commands as REST, asked for as a graph.

The types mirror the domain's views, the inputs the bodies of REST, the errors its problems. What differs is only how things are
put together: a field that leads to another thing goes through a data loader, which asks the database once a level, within what
the actor reaches. What he may not see is null there, or missing in the list.

Every operation wants somebody who is signed in, introspection too: a schema is no secret, and nobody's business either.

Deliberately REST only are signing in, passwords, second factors and invitations' answers: they set cookies or take a proof of who
asks, are counted by address, cost a hash each, so that no operation may hold ten of them, and are mostly asked for by people who
are nobody yet. So is bulk import: it takes a file, for which GraphQL has no form but multipart, and that is open to forgeries.
"""
