"""All that fedopt/flower/ uses of Flower beyond flwr.app, flwr.clientapp and flwr.serverapp.

Flower may change these names in any release. This module checks the version, so that an unsupported Flower is reported
in one sentence and a new release breaks this file only.
"""

from __future__ import annotations

from fedopt.flower_version import flower_imports

with flower_imports():
    from flwr.common.constant import ErrorCode
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity

__all__ = ["ErrorCode", "Run", "TaskIdentity"]
