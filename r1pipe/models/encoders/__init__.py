"""The frozen encoders: CLIP, image, depth and points with the box detector, and what they make of a scene."""
