package sqlitestore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// batch is one call of ApplyDevices while it runs. The counters are kept here
// and written once. Every check of a write comes before its first change, so that one
// that is refused leaves nothing behind without a savepoint, which would cost
// as much as the write itself.
type batch struct {
	s        *Store
	c        *conn
	tenant   iot.TenantID
	max      int64
	devices  int64
	sequence uint64
}

// ApplyDevices implements registry.Loader.
func (s *Store) ApplyDevices(ctx context.Context, tenant iot.TenantID, writes []registry.DeviceWrite, maxDevices int64) ([]error, error) {
	if len(writes) > registry.MaxBatch {
		return nil, iot.Errorf(iot.ErrTooLarge, "%d writes, at most %d are made at once", len(writes), registry.MaxBatch)
	}
	results := make([]error, len(writes))
	err := s.writeMany(ctx, len(writes), func(ctx context.Context, c *conn) error {
		if err := c.checkTenant(ctx, tenant, ""); err != nil {
			return err
		}
		b := &batch{s: s, c: c, tenant: tenant, max: maxDevices}
		return b.run(ctx, writes, results)
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

func (b *batch) run(ctx context.Context, writes []registry.DeviceWrite, results []error) error {
	var sequence int64
	err := b.c.row(ctx, `SELECT sequence, devices FROM counters WHERE tenant = ?`, []any{string(b.tenant)}, &sequence, &b.devices)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	b.sequence = uint64(sequence)
	var latest time.Time
	for i := range writes {
		err := b.apply(ctx, &writes[i])
		var refused *iot.Error
		switch {
		case errors.As(err, &refused):
			results[i] = err
		case err != nil:
			return err // of the file: nothing of the batch is made
		}
		if at := writes[i].Device.Status.Updated.Time; at.After(latest) {
			latest = at
		}
	}
	if b.sequence == uint64(sequence) {
		return nil
	}
	if err := b.c.feedAll(ctx); err != nil {
		return err
	}
	_, err = b.c.exec(ctx, `INSERT INTO counters (tenant, sequence, devices) VALUES (?1, ?2, ?3)
		ON CONFLICT (tenant) DO UPDATE SET sequence = ?2, devices = ?3`, string(b.tenant), int64(b.sequence), b.devices)
	if err != nil {
		return err
	}
	return b.s.prune(ctx, b.c, latest, len(b.c.changes))
}

func (b *batch) apply(ctx context.Context, w *registry.DeviceWrite) error {
	switch w.Op {
	case registry.CreateOp:
		return b.create(ctx, w)
	case registry.DeleteOp:
		return b.delete(ctx, w)
	}
	old, before, err := b.c.storedDevice(ctx, b.tenant, w.Device.ID, w.IfVersion)
	switch {
	case errors.Is(err, errNoDevice) && w.Op == registry.PutOp && w.IfVersion == "":
		return b.create(ctx, w)
	case err != nil:
		return err
	case w.Op == registry.SetEnabledOp:
		return b.setEnabled(ctx, w, old, before)
	case w.Op == registry.UpdateOp || w.Op == registry.PutOp:
		return b.update(ctx, w, old, before)
	}
	return iot.Errorf(iot.ErrInvalid, "no operation %d", w.Op)
}

func (b *batch) create(ctx context.Context, w *registry.DeviceWrite) error {
	d := &w.Device
	if b.max >= 0 && b.devices >= b.max {
		return iot.Errorf(iot.ErrForbidden, "configured device limit reached [max devices: %d]", b.max)
	}
	docs, err := b.checkSet(ctx, w)
	if err != nil {
		return err
	}
	doc, groups, err := encodeDevice(&d.Device)
	if err != nil {
		return err
	}
	version := w.CredentialsVersion
	if w.Credentials != nil {
		version = w.Credentials.Version
	}
	n, err := b.c.exec(ctx, `INSERT INTO devices (tenant, id, doc, via_groups, version, credentials_version,
			created, updated, auto_provisioned, notification_sent)
		VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?) ON CONFLICT DO NOTHING`,
		string(b.tenant), string(d.ID), doc, groups, d.Version, version,
		millis(d.Status.Created.Time), d.Status.AutoProvisioned, d.Status.AutoProvisioningNotificationSent)
	if err != nil {
		return err
	}
	if n == 0 {
		return iot.Errorf(iot.ErrExists, "device already exists")
	}
	b.devices++
	if err := b.s.relate(ctx, b.c, b.tenant, d.ID, nil, nil, &d.Device, doc); err != nil {
		return err
	}
	for i := range docs {
		if err := b.insert(ctx, w.Credentials, i, docs[i]); err != nil {
			return err
		}
	}
	b.record(d.Change(registry.Create, d.Status.Created.Time))
	return nil
}

// insert puts a credential that was checked. That it is taken all the same is
// then a fault of the file, not of the request.
func (b *batch) insert(ctx context.Context, r *registry.CredentialsRecord, i int, doc []byte) error {
	err := b.c.insertCredential(ctx, r, i, doc)
	if errors.Is(err, iot.ErrExists) {
		return errors.New("the file changed inside a transaction")
	}
	return err
}

// checkSet encodes the credentials of a write; iot.ErrExists when another device
// has one of them.
func (b *batch) checkSet(ctx context.Context, w *registry.DeviceWrite) (docs [][]byte, err error) {
	if w.Credentials == nil {
		return nil, nil
	}
	set := w.Credentials.Set
	docs = make([][]byte, len(set))
	for i := range set {
		taken, err := b.c.exists(ctx, `SELECT 1 FROM credentials WHERE tenant = ? AND type = ? AND auth_id = ? AND device <> ?`,
			string(b.tenant), set[i].Type, set[i].AuthID, string(w.Device.ID))
		if err == nil && !taken {
			taken = slices.ContainsFunc(set[:i], func(c iot.Credential) bool { return c.Type == set[i].Type && c.AuthID == set[i].AuthID })
		}
		if err != nil {
			return nil, err
		}
		if taken {
			return nil, iot.Errorf(iot.ErrExists, "credentials[%d]: (type, auth-id) is in use already", i)
		}
		if docs[i], err = json.Marshal(set[i]); err != nil {
			return nil, err
		}
	}
	return docs, nil
}

func (b *batch) update(ctx context.Context, w *registry.DeviceWrite, old []byte, before *iot.Device) error {
	d := &w.Device
	docs, err := b.checkSet(ctx, w)
	if err != nil {
		return err
	}
	if err := b.put(ctx, d, old, before); err != nil {
		return err
	}
	b.record(d.Change(registry.Update, d.Status.Updated.Time))
	if w.Credentials == nil {
		return nil
	}
	if err := b.c.dropCredentials(ctx, b.tenant, d.ID); err != nil {
		return err
	}
	for i := range docs {
		if err := b.insert(ctx, w.Credentials, i, docs[i]); err != nil {
			return err
		}
	}
	if _, err := b.c.exec(ctx, `UPDATE devices SET credentials_version = ? WHERE tenant = ? AND id = ?`,
		w.Credentials.Version, string(b.tenant), string(d.ID)); err != nil {
		return err
	}
	b.record(registry.Change{Tenant: b.tenant, Kind: registry.CredentialsChanged, Device: d.ID, At: d.Status.Updated.Time})
	return nil
}

func (b *batch) setEnabled(ctx context.Context, w *registry.DeviceWrite, old []byte, before *iot.Device) error {
	to := w.Device.Device
	if before.IsEnabled() == to.IsEnabled() {
		return nil
	}
	d := w.Device
	d.Device = *before
	d.Device.Enabled = to.Enabled
	if err := b.put(ctx, &d, old, before); err != nil {
		return err
	}
	b.record(d.Change(registry.Update, d.Status.Updated.Time))
	return nil
}

// put replaces the document of a device that is there.
func (b *batch) put(ctx context.Context, d *registry.DeviceRecord, old []byte, before *iot.Device) error {
	doc, groups, err := encodeDevice(&d.Device)
	if err != nil {
		return err
	}
	if _, err := b.c.exec(ctx, `UPDATE devices SET doc = ?, via_groups = ?, version = ?, updated = ? WHERE tenant = ? AND id = ?`,
		doc, groups, d.Version, millis(d.Status.Updated.Time), string(b.tenant), string(d.ID)); err != nil {
		return err
	}
	return b.s.relate(ctx, b.c, b.tenant, d.ID, before, old, &d.Device, doc)
}

func (b *batch) delete(ctx context.Context, w *registry.DeviceWrite) error {
	if err := b.s.deleteDevice(ctx, b.c, b.tenant, w.Device.ID, w.IfVersion); err != nil {
		return err
	}
	b.devices--
	b.record(registry.Change{
		Tenant: b.tenant, Kind: registry.DeviceChanged, Device: w.Device.ID, Change: registry.Delete, At: w.Device.Status.Updated.Time,
	})
	return nil
}

// record keeps a change for the feed, to which all are added at the end.
func (b *batch) record(ch registry.Change) {
	b.sequence++
	ch.Sequence = b.sequence
	b.c.changes = append(b.c.changes, ch)
}
