"""Live streams: what ingest nodes and the worker tell, handed on to those who may see it.

One process hears each node once (`nodes`), however many streams it has, and nothing while it has none. The hub hands each change
to the streams whose owners reach the place where its device stands (`places`). A stream (`subscription`) holds only so much: who
reads too slowly is told how many changes he missed, and slows nobody. Telling at once is best effort; what must arrive is in the
outbox, and what was is in the database.
"""
