"""What PEFT does with a LoRA configuration on a model, re-stated without PEFT, torch or transformers."""
