"""How 3D-R1 learns: alignment, SFT, GRPO and the controls, through TRL's own trainers."""
