"""The one door to the openvino package, which else reports each import to its maker.

Importing openvino imports openvino-telemetry, which sends an event unless it was opted out of. Here
the telemetry package is made unimportable first; openvino then uses its own stub that does nothing.
Source: openvino/tools/ovc/__init__.py.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from ondol.kernels.kernel_error import KernelError

_TELEMETRY = "openvino_telemetry"


@cache
def openvino() -> Any:
    """Return the openvino module. Raises ``KernelError`` where it cannot be imported."""
    if "openvino" not in sys.modules:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # None forbids the import
    try:
        import openvino
    except ImportError as error:
        raise KernelError(
            f"OpenVINO cannot be imported: {error}", hint="pip install openvino"
        ) from error
    return openvino
