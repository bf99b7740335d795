"""PEFT's rules for LoRA configurations, without PEFT, torch or transformers."""
