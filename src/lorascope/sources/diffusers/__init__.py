"""Models of diffusers: pipelines, their parts, and its classes on the meta device."""
