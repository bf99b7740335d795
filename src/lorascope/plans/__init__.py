"""Plans: rules, the targets they select, and the configuration for PEFT."""
