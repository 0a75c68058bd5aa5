"""The resolver: of any number running, the leading one writes derived state."""

from federation.resolver.observe import OBSERVED
from federation.resolver.service import Resolver
from federation.resolver.settings import ResolverSettings

__all__ = ["OBSERVED", "Resolver", "ResolverSettings"]
