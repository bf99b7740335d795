"""What vLLM and SGLang do with an adapter."""
