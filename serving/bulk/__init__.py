"""`offramp classify`: many image files in this process, through the server's scheduler."""
