"""The commands: options, and calls into the library."""
