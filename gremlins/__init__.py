"""gremlins: background coding agents whose model calls are durable records."""

__version__ = "0.1.0"
