"""3D-R1: a language model that reads scenes."""

from r1pipe.models.r1.configuration import R1Config
from r1pipe.models.r1.modeling import R1ForConditionalGeneration
from r1pipe.models.r1.processing import R1Processor, SceneReader, scene_reference

__all__ = ["R1Config", "R1ForConditionalGeneration", "R1Processor", "SceneReader", "scene_reference"]
