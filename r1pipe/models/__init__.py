"""The encoders, what they make of a scene, and the language model that reads it."""
