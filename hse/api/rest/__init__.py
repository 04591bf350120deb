"""REST: one file a noun, handlers of a line or two; what a request means is the domain's matter."""
