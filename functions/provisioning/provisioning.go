package provisioning

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

const (
	// Delay is how long a look-up waits for another that may just be telling of
	// the same device (contract: registry, section 9.2).
	Delay = 50 * time.Millisecond
	// Wait is how long the fact may take to its receivers.
	Wait = 500 * time.Millisecond
)

// Registry is what provisioning needs of the registry.
type Registry interface {
	Read(context.Context, registry.Query) (registry.Snapshot, error)
	ProvisionByCertificate(ctx context.Context, t *registry.TenantRecord, a *iot.TrustAnchor, cert *x509.Certificate, authID string) (iot.DeviceID, error)
	ProvisionByGateway(context.Context, *registry.Snapshot) error
	MarkNotified(context.Context, *registry.DeviceRecord) error
}

// Provisioner registers devices and tells of it. Safe for concurrent use.
type Provisioner struct {
	registry Registry
	poster   events.Poster
	log      *slog.Logger
}

// New returns a Provisioner. With a nil poster nobody is told, and the devices
// stay marked as untold.
func New(r Registry, p events.Poster, log *slog.Logger) *Provisioner {
	return &Provisioner{r, p, log}
}

// ByCertificate registers the device of a verified certificate. created is
// false where another caller was first, or something else has the device's id:
// err then wraps iot.ErrExists, and the registry shows which. Other errors as
// registry.Service.ProvisionByCertificate.
func (p *Provisioner) ByCertificate(ctx context.Context, t *registry.TenantRecord, a *iot.TrustAnchor, cert *x509.Certificate, authID string) (created bool, err error) {
	id, err := p.registry.ProvisionByCertificate(ctx, t, a, cert, authID)
	if err == nil {
		p.log.InfoContext(ctx, "device registered by its certificate", "tenant", string(t.ID), "device", string(id))
	}
	return err == nil, err
}

// ByGateway registers the snapshot's missing device for its gateway. created
// is false where another caller was first.
func (p *Provisioner) ByGateway(ctx context.Context, s *registry.Snapshot) (created bool, err error) {
	err = p.registry.ProvisionByGateway(ctx, s)
	switch {
	case errors.Is(err, iot.ErrExists):
		return false, nil // what is there now decides
	case err == nil:
		p.log.InfoContext(ctx, "device registered by its gateway", "tenant", string(s.Tenant.ID), "device", string(s.DeviceID), "gateway", string(s.GatewayID))
	}
	return err == nil, err
}

// Untold reports whether a device of the snapshot was registered by itself and
// the world was not told yet.
func (p *Provisioner) Untold(s *registry.Snapshot) bool {
	return p.poster != nil && (untold(s.Device) || untold(s.Gateway))
}

func untold(d *registry.DeviceRecord) bool {
	return d != nil && d.Status.AutoProvisioned && !d.Status.AutoProvisioningNotificationSent
}

// Tell tells the world of the snapshot's devices that it was not told of, and
// marks them; q is what the snapshot answers, and the caller reads again
// afterwards. Unless this caller created the device just now, another one may
// be at it: the registry is looked at again after [Delay]. The error, which
// wraps iot.ErrUnavailable, means that the fact was not taken.
func (p *Provisioner) Tell(ctx context.Context, q registry.Query, s registry.Snapshot, created bool) error {
	if !created {
		if err := pause(ctx); err != nil {
			return err
		}
		var err error
		if s, err = p.registry.Read(ctx, q); err != nil {
			return err
		}
	}
	for _, d := range []*registry.DeviceRecord{s.Gateway, s.Device} {
		if !untold(d) {
			continue
		}
		if err := p.tell(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provisioner) tell(ctx context.Context, d *registry.DeviceRecord) error {
	fact := events.DeviceProvisioned{TenantID: d.Tenant, DeviceID: d.ID, Method: events.ByCertificate, At: d.Status.Created.UTC()}
	if len(d.Device.Via) > 0 { // as it was made: a certificate makes none
		fact.Method, fact.GatewayID = events.ByGateway, d.Device.Via[0]
	}
	posting, cancel := context.WithTimeout(ctx, Wait)
	defer cancel()
	if err := p.poster.Post(posting, []events.Fact{fact}); err != nil {
		p.log.WarnContext(ctx, "nobody took the notice of a registered device; the next look-up sends it again",
			"tenant", string(d.Tenant), "device", string(d.ID), "err", err)
		return &iot.Error{Sentinel: iot.ErrUnavailable, Text: "the notice of the device's registration was not taken", RetryAfter: time.Second}
	}
	// A mark that fails costs one more notice, later.
	if err := p.registry.MarkNotified(ctx, d); err != nil && !errors.Is(err, iot.ErrVersion) && !errors.Is(err, iot.ErrNotFound) {
		p.log.WarnContext(ctx, "the mark that a device's registration was told of is not kept", "tenant", string(d.Tenant), "device", string(d.ID), "err", err)
	}
	return nil
}

func pause(ctx context.Context) error {
	t := time.NewTimer(Delay)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return iot.Errorf(iot.ErrTimeout, "no time left to ask again")
	}
}

// Read reads what q asks for where q names the tenant by its id. By an alias
// only the tenant itself is found, and who admits devices finds it (contract:
// registry, the Tenant API); to all others it is iot.ErrNotFound.
func Read(ctx context.Context, r Registry, q registry.Query) (registry.Snapshot, error) {
	s, err := r.Read(ctx, q)
	if err == nil && s.Tenant.ID != q.Tenant.ID {
		return registry.Snapshot{}, iot.Errorf(iot.ErrNotFound, "tenant does not exist")
	}
	return s, err
}
