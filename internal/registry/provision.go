package registry

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"slices"

	"github.com/sluice-iot/sluice/internal/iot"
)

// ProvisionByCertificate registers the device of a client certificate that a
// trust anchor of the snapshot's tenant issued, and its x509-cert credential
// with the given auth-id, both or neither (contract: registry, section 9.1).
// That the certificate was verified and that the anchor allows it is the
// caller's to check.
//
// iot.ErrInvalid when the subject lacks what the anchor's device id template
// needs or yields no valid id, iot.ErrForbidden at a limit of the tenant,
// iot.ErrExists when the device or the credential is there already.
func (s *Service) ProvisionByCertificate(ctx context.Context, t *TenantRecord, a *iot.TrustAnchor, cert *x509.Certificate, authID string) (iot.DeviceID, error) {
	id := iot.DeviceID(newUUID())
	if a.AutoProvisioningDeviceIDTemplate != "" {
		text, err := ApplyTemplate(a.AutoProvisioningDeviceIDTemplate, cert.RawSubject)
		if err != nil {
			return "", err
		}
		id = iot.DeviceID(text)
	}
	yes := true
	comment := "Auto-provisioned at " + s.now().Format("2006-01-02T15:04:05Z")
	ext, err := json.Marshal(map[string]string{"comment": comment})
	if err != nil {
		return "", err
	}
	d := iot.Device{Enabled: &yes, Ext: ext}
	if a.AutoProvisionAsGateway {
		d.Authorities = []string{iot.AuthorityAutoProvisioning}
	}
	set := []iot.Credential{{Type: iot.X509Cert, AuthID: authID, Enabled: &yes, Comment: comment, Secrets: make([]iot.Secret, 1)}}
	if err := s.checkSet(set); err != nil {
		return "", err
	}
	set[0].Secrets[0].ID = newUUID()
	return id, s.provision(ctx, t, id, d, set)
}

// ProvisionByGateway registers the snapshot's missing device for the
// snapshot's gateway, where [MayProvision] allows it (contract: registry,
// section 9.2). Errors as [Service.ProvisionByCertificate]; iot.ErrInvalid is
// about the device id.
func (s *Service) ProvisionByGateway(ctx context.Context, snap *Snapshot) error {
	if !MayProvision(snap) {
		return iot.Errorf(iot.ErrForbidden, "gateway is not authorised to register devices")
	}
	yes := true
	return s.provision(ctx, &snap.Tenant, snap.DeviceID, iot.Device{
		Enabled: &yes, Via: iot.OneOrMany[iot.DeviceID]{snap.GatewayID}, ViaGroups: slices.Clone(snap.Gateway.Device.MemberOf),
	}, nil)
}

func (s *Service) provision(ctx context.Context, t *TenantRecord, id iot.DeviceID, d iot.Device, set []iot.Credential) error {
	if err := s.checkIDs(t.ID, id); err != nil {
		return err
	}
	if err := checkDevice(&d); err != nil {
		return err
	}
	if err := checkCredentialsLimit(&t.Tenant, len(set)); err != nil {
		return err
	}
	now := iot.Timestamp{Time: s.now()}
	w := DeviceWrite{
		Op: CreateOp, CredentialsVersion: newUUID(),
		Device: DeviceRecord{Tenant: t.ID, ID: id, Device: d, Version: newUUID(),
			Status: iot.DeviceStatus{Created: now, Updated: now, AutoProvisioned: true}},
	}
	if len(set) > 0 {
		w.Credentials = &CredentialsRecord{Tenant: t.ID, Device: id, Set: set, Version: newUUID()}
	}
	results, err := s.store.ApplyDevices(ctx, t.ID, []DeviceWrite{w}, s.maxDevices(&t.Tenant))
	if err != nil {
		return err
	}
	return results[0]
}

// MarkNotified records that the world was told of a device that was
// provisioned by itself; d as it was read. iot.ErrVersion when it has changed since.
func (s *Service) MarkNotified(ctx context.Context, d *DeviceRecord) error {
	return s.store.MarkNotified(ctx, d.Tenant, d.ID, d.Version, newUUID(), s.now())
}

// KeepVerified keeps a proof beside a secret of the snapshot's credential.
func (s *Service) KeepVerified(ctx context.Context, snap *Snapshot, v Verified) error {
	return s.store.KeepVerified(ctx, snap.Tenant.ID, snap.Credential.Type, snap.Credential.AuthID, v)
}
