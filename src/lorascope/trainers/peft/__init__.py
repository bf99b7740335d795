"""PEFT itself."""
