"""Other trainers: their configurations and what they adapt."""
