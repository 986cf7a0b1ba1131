"""Alignment, SFT, GRPO and the control, through TRL's own trainers."""
