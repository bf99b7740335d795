"""What lorascope shows: text for the terminal."""
