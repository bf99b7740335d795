"""Other trainers: how each is configured, and what it adapts."""
