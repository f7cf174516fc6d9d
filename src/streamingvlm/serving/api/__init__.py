"""The service's doors: HTTP, WebSocket, gRPC, Prometheus. They know `service.Service`, a protocol, and nothing of cameras or models.

Doors: `app.application(service)` -> a FastAPI application; `rpc.server(service, …)` -> a gRPC server; `listen.listening(…)` runs the first.
"""
