"""What learns: the encoders, then the language model that reads them."""
