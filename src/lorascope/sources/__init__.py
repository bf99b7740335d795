"""Where a model map comes from: a built-in model, or a configuration built by transformers on the meta device."""
