"""Short trials of networks for the embedded bundle."""
