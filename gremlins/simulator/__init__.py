"""A local Messages and Batches API over real HTTP, for the demo and the tests. It is a simulator, and no model."""

from __future__ import annotations

from gremlins.simulator.api import ModelError
from gremlins.simulator.example import ExampleModel
from gremlins.simulator.faults import Fault
from gremlins.simulator.messages import ModelReply
from gremlins.simulator.model import Model, ScriptedModel
from gremlins.simulator.options import Options, options_from_file, options_from_json
from gremlins.simulator.rules import EditRule, RulesModel
from gremlins.simulator.simulator import Simulator, serve_forever

__all__ = [
    "EditRule",
    "ExampleModel",
    "Fault",
    "Model",
    "ModelError",
    "ModelReply",
    "Options",
    "RulesModel",
    "ScriptedModel",
    "Simulator",
    "options_from_file",
    "options_from_json",
    "serve_forever",
]
