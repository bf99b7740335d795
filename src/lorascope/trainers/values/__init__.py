"""Types of options' values, by kind of reader."""
