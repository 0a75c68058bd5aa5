"""Objects of a Kubernetes cluster: read by list and watch, their statuses by server-side apply."""

from federation.adapters.kubernetes.connection import (
    Connection,
    ConnectionSettings,
    KubeconfigError,
    connected,
)
from federation.adapters.kubernetes.derived import KubernetesDerivedObjects
from federation.adapters.kubernetes.events import KubernetesEventSink
from federation.adapters.kubernetes.identity import (
    CLUSTER_ID,
    CLUSTERSET,
    ClusterProperties,
    cluster_uid,
)
from federation.adapters.kubernetes.infrastructure import KubernetesGatewayInfrastructure
from federation.adapters.kubernetes.lease import KubernetesSeat, LeaseSettings, not_leading
from federation.adapters.kubernetes.membership import apply_objects, delete_labelled
from federation.adapters.kubernetes.reader import KubernetesReader
from federation.adapters.kubernetes.service_ports import KubernetesServicePorts
from federation.adapters.kubernetes.source import KubernetesSource, KubernetesSourceSettings
from federation.adapters.kubernetes.statuses import KubernetesStatusSink

__all__ = [
    "CLUSTERSET",
    "CLUSTER_ID",
    "ClusterProperties",
    "Connection",
    "ConnectionSettings",
    "KubeconfigError",
    "KubernetesDerivedObjects",
    "KubernetesEventSink",
    "KubernetesGatewayInfrastructure",
    "KubernetesReader",
    "KubernetesSeat",
    "KubernetesServicePorts",
    "KubernetesSource",
    "KubernetesSourceSettings",
    "KubernetesStatusSink",
    "LeaseSettings",
    "apply_objects",
    "cluster_uid",
    "connected",
    "delete_labelled",
    "not_leading",
]
