"""What servers take of an adapter."""
