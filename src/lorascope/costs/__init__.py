"""What a plan costs: parameters, files and memory."""
