"""Images in tar shards, local or remote."""
