"""The other trainers: a room each for how its configuration is written, read, and what it then adapts."""
