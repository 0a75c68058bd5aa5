"""Messages of the demo services, generated from `user_service.proto` by ``make protos``."""
