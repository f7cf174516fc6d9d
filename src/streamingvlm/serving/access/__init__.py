"""Who may come in, and what they may see and do: tokens, roles, an audit log, limits of rate, where cameras may be taken from.

Knows the service by its protocol (`serving.service`), no camera and no model. `gate.Gate` knows the tokens; `scoped.Scoped` is the service as the
bearer of one of them sees it. `door` stands before HTTP and WebSockets, `calls` before gRPC. Nothing is open that `needs` does not name.
"""
