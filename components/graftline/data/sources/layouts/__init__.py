"""What each level of a source's folders means."""
