"""What a plan costs: parameters, files, memory; and the largest ranks that a budget pays for."""
