"""How 3D-R1 learns: alignment, SFT, GRPO and the control, through TRL's own trainers."""
