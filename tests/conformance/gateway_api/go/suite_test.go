// Package gatewayapi runs the conformance suite of the Gateway API against the cluster that the
// environment's kubeconfig leads to. What is claimed, the profiles and the report's place come by
// the suite's own flags and its file of options; nothing of the suite is changed.
package gatewayapi

import (
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
)

func TestGatewayAPI(t *testing.T) {
	conformance.RunConformance(t)
}
