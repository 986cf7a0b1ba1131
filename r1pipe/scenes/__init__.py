"""The room itself: points, instances, objects, and how they stand to each other."""

from r1pipe.scenes.scene import Scene, SceneObject

__all__ = ["Scene", "SceneObject"]
