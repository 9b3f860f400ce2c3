"""The subcommands of `graftline`, a module for each group."""
