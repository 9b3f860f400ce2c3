"""Where the user's labelled images come from: class folders, a table, or tar shards."""
