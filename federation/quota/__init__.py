"""Divides rate limits that a cluster's gateways share, by Envoy's Rate Limit Quota Service."""

from federation.quota.ledger import Ledger
from federation.quota.service import QuotaService
from federation.quota.settings import QuotaSettings

__all__ = ["Ledger", "QuotaService", "QuotaSettings"]
