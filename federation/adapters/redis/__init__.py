"""The quota board on Redis or Valkey (6.2 or newer)."""

from federation.adapters.redis.board import RedisBoard, RedisUrlError

__all__ = ["RedisBoard", "RedisUrlError"]
