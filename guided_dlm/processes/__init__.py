"""Corruption processes: how noise enters a canvas and how a step takes it out."""

from guided_dlm.processes.base import Prediction, Process, Transition
from guided_dlm.processes.gaussian import GaussianProcess, clean_from_noise, clean_from_velocity
from guided_dlm.processes.masked import MaskedProcess
from guided_dlm.processes.simplex import SimplexProcess
from guided_dlm.processes.uniform import UniformProcess

__all__ = [
    "GaussianProcess",
    "MaskedProcess",
    "Prediction",
    "Process",
    "SimplexProcess",
    "Transition",
    "UniformProcess",
    "clean_from_noise",
    "clean_from_velocity",
]
