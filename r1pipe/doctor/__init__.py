"""What this machine can run and what it lacks, in general and for one profile, as lists of findings."""

from r1pipe.doctor.compositions import load_profile
from r1pipe.doctor.findings import Finding
from r1pipe.doctor.machine import examine, hardware
from r1pipe.doctor.parts import Plan, plan
from r1pipe.doctor.profile import examine_profile

__all__ = ["Finding", "Plan", "examine", "examine_profile", "hardware", "load_profile", "plan"]
