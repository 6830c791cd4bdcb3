"""Inside the blocks: their parts, how they were found, and what writes in them."""
