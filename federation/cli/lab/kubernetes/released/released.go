// Package released keeps the modules in go.mod.
package released

import (
	_ "sigs.k8s.io/gateway-api/apis/v1"
	_ "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)
