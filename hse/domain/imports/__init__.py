"""Bulk import: one flat table of establishments, areas and devices becomes the commands of the nouns that own them."""
