"""What a check has to say of a configuration, a room for each kind of thing that goes wrong."""
