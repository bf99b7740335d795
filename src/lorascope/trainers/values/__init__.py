"""Types of options' values, a module for each kind of reader."""
