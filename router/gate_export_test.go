package router

import (
	"time"

	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/forward"
)

// NewGate is the gate of one sender to an address of tenant.
func NewGate(tenant iot.TenantID, required bool, v *assertion.Verifier, now func() time.Time) forward.Gate {
	return &gate{tenant: tenant, required: required, verifier: v, now: now}
}

// NewPropertyGate is NewGate in the mode of 2018.
func NewPropertyGate(tenant iot.TenantID, v *assertion.Verifier, now func() time.Time) forward.Gate {
	return &gate{tenant: tenant, required: true, property: true, verifier: v, now: now}
}
