"""The base class of responses: Starlette's if it is installed, so that ours are real responses there."""

try:
    from starlette.responses import Response as Response
except ImportError:
    from .plain import Response as Response  # type: ignore[assignment]
