"""The link between the planes: commands on their way to devices and back, with nodes that do what a test tells them."""
