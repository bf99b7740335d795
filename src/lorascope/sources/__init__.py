"""Sources of model maps: files, configurations, modules, built-in models."""
