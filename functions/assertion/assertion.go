package assertion

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/iot"
)

// maxOverlap bounds how long an old key may verify.
const maxOverlap = 365 * 24 * time.Hour

// Functions answers assertion.sign, .keys and .rotate.
type Functions struct{ signer *assertion.Signer }

// New returns the functions over s.
func New(s *assertion.Signer) *Functions { return &Functions{s} }

// Sign vouches for whomever the caller names: it must never be reachable from
// outside the process that links it.
func (f *Functions) Sign(ctx context.Context, req events.AssertionSign) (*events.AssertionSigned, error) {
	tok, err := f.signer.Sign(ctx, assertion.Subject{
		Tenant: req.TenantID, Device: req.DeviceID, Gateway: req.GatewayID, Rev: req.Rev,
	})
	if err != nil {
		return nil, err
	}
	return &events.AssertionSigned{Assertion: tok.JWT, Expires: tok.Expires}, nil
}

// Keys returns the public keys as a JWK set.
func (f *Functions) Keys(ctx context.Context, _ events.AssertionKeys) (*events.KeySet, error) {
	set, err := f.signer.KeySet(ctx)
	if err != nil {
		return nil, err
	}
	return &events.KeySet{Keys: set.Keys, CacheFor: assertion.KeySetMaxAge}, nil
}

// Rotate makes a new signing key, once per UTC day.
func (f *Functions) Rotate(ctx context.Context, req events.AssertionRotate) (*events.AssertionRotated, error) {
	if req.OverlapSeconds < 0 || req.OverlapSeconds > int(maxOverlap/time.Second) {
		return nil, iot.Errorf(iot.ErrInvalid, "overlap-seconds is %d, want 0 to %d", req.OverlapSeconds, maxOverlap/time.Second)
	}
	kid, err := f.signer.Rotate(ctx, time.Duration(req.OverlapSeconds)*time.Second, req.At)
	if err != nil {
		return nil, err
	}
	return &events.AssertionRotated{KID: kid}, nil
}
