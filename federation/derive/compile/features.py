"""What of the Gateway API is served, in the words of its feature names.

Decides: what every GatewayClass of ours says in ``status.supportedFeatures``.
Leaves to others: each feature itself; the Gateway API's conformance suite, which reads the list
from the status and runs the tests of every feature in it (``tests/conformance/gateway_api``).
Invariants: sorted, as the Gateway API demands; a name stands here only while its tests pass.
"""

from __future__ import annotations

_CORE = ("Gateway", "GRPCRoute", "HTTPRoute", "ReferenceGrant")
"""All that the Gateway API calls core for these."""

_DEDICATED = ("GatewayAddressEmpty", "GatewayInfrastructure", "GatewayStaticAddresses")
"""Where each Gateway has gateways and an address of its own."""

_GATEWAY = (
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayPort8080",
    "ListenerSet",
)

_GRPC_ROUTE = ("GRPCRouteNamedRouteRule",)

_HTTP_ROUTE = (
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
)

SHARED = tuple(sorted((*_CORE, *_GATEWAY, *_GRPC_ROUTE, *_HTTP_ROUTE)))
"""What is served where Gateways share gateways."""

EVERYTHING = tuple(sorted((*SHARED, *_DEDICATED)))
"""What is served where they do not."""


def supported_features(*, dedicated: bool) -> tuple[str, ...]:
    """Names of the features that are served; ``dedicated``: by gateways of each Gateway's own."""
    return EVERYTHING if dedicated else SHARED
