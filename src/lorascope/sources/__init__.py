"""Where a model map comes from: the gallery, or a configuration built by transformers on the meta device."""
