"""How the encoders learn, and how well each did beside a control."""
