"""How commands get from their queues to the nodes, and what becomes of them back into the database.

`dispatcher` is the whole of it: claims queues, finds the nodes, hands over, listens. `offers` keeps which node has taken what of
one claim, `writer` writes reports and releases together, `messages` knows the words of the nodes.
"""
