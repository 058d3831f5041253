"""A small Functions host for one machine: it listens; Microsoft's worker library indexes and invokes."""
