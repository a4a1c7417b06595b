package pgstore

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// unit is what one transaction knows and changes of one tenant's devices: read
// under the lock of the tenant's counters, changed in memory, and written as a
// whole. One device and a thousand take the same round trips.
type unit struct {
	tenant   iot.TenantID
	known    bool  // the tenant exists
	sequence int64 // of the last change
	devices  int64 // how many the tenant has
	paths    []indexedPath
	rows     map[iot.DeviceID]*device
	owners   map[credentialKey]iot.DeviceID // of the keys that are wanted or owned
	all      bool                           // remove every device
	changes  []registry.Change
}

// device is a row of devices with what belongs to it.
type device struct {
	record             registry.DeviceRecord
	credentialsVersion string
	owned              []credentialKey

	stored  bool // in the database
	present bool // still there, or made here
	dirty   bool // the row is to be written
	newDoc  bool // and all that follows from the document, too

	replaced    bool // the credentials are to be written
	credentials []credentialRow
}

type credentialKey struct{ credentialType, authID string }

type credentialRow struct {
	key credentialKey
	doc []byte
}

// wanted is what a unit reads before the change.
type wanted struct {
	ids  []iot.DeviceID
	keys []credentialKey // in use by whom
	// owned reads which keys the devices have: for changes that free some.
	owned bool
	// counted makes the row of counters of a tenant that never was.
	counted bool
}

// alter makes one change of a tenant's devices: f checks and changes the unit,
// and an error of f undoes everything.
func (s *Store) alter(ctx context.Context, tenant iot.TenantID, w wanted, f func(*unit) error) error {
	var done *unit
	err := s.change(ctx, func(ctx context.Context, t *tx) error {
		u, err := s.begin(ctx, t, tenant, &w)
		if err != nil {
			return err
		}
		if err := f(u); err != nil {
			return err
		}
		if u.all {
			all := &pgx.Batch{}
			u.clearAll(all)
			if err := t.long(ctx, all); err != nil {
				return err
			}
		}
		b := &pgx.Batch{}
		if err := u.write(b); err != nil {
			return err
		}
		s.pruner.due(u.changes).queue(b)
		if err := t.finish(ctx, b); err != nil {
			return err
		}
		done = u
		return nil
	})
	if err == nil && len(done.changes) > 0 {
		s.observe(ctx, done.changes)
	}
	return err
}

const deviceColumns = `d.doc, d.version, d.created, d.updated, d.auto_provisioned, d.notification_sent`

func (s *Store) begin(ctx context.Context, t *tx, tenant iot.TenantID, w *wanted) (*unit, error) {
	u := &unit{tenant: tenant, rows: make(map[iot.DeviceID]*device, len(w.ids)), owners: make(map[credentialKey]iot.DeviceID)}
	ids := texts(w.ids)
	b := &pgx.Batch{}
	if w.counted {
		b.Queue(`INSERT INTO counters (tenant, sequence, devices) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING`, string(tenant))
	}
	lockCounters(b, text(tenant), &u.sequence, &u.devices)
	var generation int64
	b.Queue(`SELECT EXISTS (SELECT 1 FROM tenants WHERE id = $1), generation FROM state`, text(tenant)).QueryRow(func(row pgx.Row) error {
		return row.Scan(&u.known, &generation)
	})
	// One lookup per text, whatever the planner knows about the sizes of tables.
	b.Queue(`SELECT d.id, d.credentials_version, `+deviceColumns+` FROM unnest($2::text[]) k (id)
		CROSS JOIN LATERAL (SELECT * FROM devices x WHERE x.tenant = $1 AND x.id = k.id LIMIT 1) d`,
		text(tenant), ids).Query(u.scanDevices)
	if len(w.keys) > 0 {
		types, authIDs := keyTexts(w.keys)
		b.Queue(`SELECT c.device, k.type, k.auth_id FROM unnest($2::text[], $3::text[]) k (type, auth_id)
			CROSS JOIN LATERAL (SELECT device FROM credentials x WHERE x.tenant = $1 AND x.type = k.type AND x.auth_id = k.auth_id LIMIT 1) c`,
			text(tenant), types, authIDs).Query(u.scanOwners)
	}
	if w.owned {
		b.Queue(`SELECT k.id, c.type, c.auth_id FROM unnest($2::text[]) k (id)
			CROSS JOIN LATERAL (SELECT type, auth_id FROM credentials x WHERE x.tenant = $1 AND x.device = k.id OFFSET 0) c`,
			text(tenant), ids).Query(u.scanOwners)
	}
	if err := t.load(ctx, b); err != nil {
		return nil, err
	}
	var err error
	u.paths, err = s.paths.at(ctx, t, generation)
	return u, err
}

// lockCounters takes the lock of a tenant: the first of a change.
func lockCounters(b *pgx.Batch, tenant any, sequence, devices *int64) {
	b.Queue(`SELECT sequence, devices FROM counters WHERE tenant = $1 FOR UPDATE`, tenant).QueryRow(func(row pgx.Row) error {
		err := row.Scan(sequence, devices)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
}

func (u *unit) scanDevices(rows pgx.Rows) error {
	var id string
	var row deviceRow
	var credentialsVersion string
	columns := append([]any{&id, &credentialsVersion}, row.columns()...)
	for rows.Next() {
		if err := rows.Scan(columns...); err != nil {
			return err
		}
		r, err := row.record(u.tenant, iot.DeviceID(id))
		if err != nil {
			return err
		}
		u.rows[r.ID] = &device{record: *r, credentialsVersion: credentialsVersion, stored: true, present: true}
	}
	return rows.Err()
}

func (u *unit) scanOwners(rows pgx.Rows) error {
	for rows.Next() {
		var id string
		var k credentialKey
		if err := rows.Scan(&id, &k.credentialType, &k.authID); err != nil {
			return err
		}
		owner := iot.DeviceID(id)
		if _, twice := u.owners[k]; twice {
			continue
		}
		u.owners[k] = owner
		if d := u.rows[owner]; d != nil {
			d.owned = append(d.owned, k)
		}
	}
	return rows.Err()
}

// find returns a device of the unit; errNoDevice or errVersion unless it is
// there in that version.
func (u *unit) find(id iot.DeviceID, ifVersion string) (*device, error) {
	d := u.rows[id]
	switch {
	case d == nil || !d.present:
		return nil, errNoDevice
	case ifVersion != "" && ifVersion != d.record.Version:
		return nil, errVersion
	}
	return d, nil
}

func (u *unit) checkTenant() error {
	if !u.known {
		return errNoTenant
	}
	return nil
}

// note adds a change to the feed.
func (u *unit) note(c registry.Change) {
	u.sequence++
	c.Tenant, c.Sequence, c.At = u.tenant, uint64(u.sequence), instant(millis(c.At))
	u.changes = append(u.changes, c)
}

func (u *unit) noteDevice(d *device, change string, at time.Time) {
	c := registry.Change{Kind: registry.DeviceChanged, Device: d.record.ID, Change: change, At: at}
	if change != registry.Delete {
		c.Enabled = d.record.Device.IsEnabled()
	}
	u.note(c)
}

// create adds a device; canCreate says whether it may.
func (u *unit) create(r registry.DeviceRecord, credentialsVersion string) {
	d := u.rows[r.ID]
	if d == nil {
		d = &device{}
		u.rows[r.ID] = d
	}
	d.record, d.credentialsVersion = r, credentialsVersion
	d.present, d.dirty, d.newDoc = true, true, true
	d.replaced = true // one that was removed in this unit had some
	u.devices++
	u.noteDevice(d, registry.Create, r.Status.Created.Time)
}

func (u *unit) canCreate(r *registry.DeviceRecord, maxDevices int64) error {
	if maxDevices >= 0 && u.devices >= maxDevices {
		return iot.Errorf(iot.ErrForbidden, "configured device limit reached [max devices: %d]", maxDevices)
	}
	if d := u.rows[r.ID]; d != nil && d.present {
		return errExists
	}
	return checkTexts(r)
}

// checkTexts refuses what would fail the statement, and others' changes with it.
func checkTexts(r *registry.DeviceRecord) error {
	ok := storable(string(r.ID), r.Version) && storable(r.Device.MemberOf...) && storable(r.Device.ViaGroups...)
	for _, g := range r.Device.Via {
		ok = ok && storable(string(g))
	}
	if !ok {
		return errText
	}
	return nil
}

func (u *unit) update(d *device, r *registry.DeviceRecord) {
	d.record.Device, d.record.Version, d.record.Status.Updated = r.Device, r.Version, r.Status.Updated
	d.dirty, d.newDoc = true, true
	u.noteDevice(d, registry.Update, r.Status.Updated.Time)
}

func (u *unit) remove(d *device, at time.Time) {
	u.disown(d)
	d.present, d.dirty, d.newDoc, d.replaced, d.credentials = false, false, false, false, nil
	u.devices--
	u.noteDevice(d, registry.Delete, at)
}

func (u *unit) disown(d *device) {
	for _, k := range d.owned {
		delete(u.owners, k)
	}
	d.owned = nil
}

// canPut checks that the credentials of a set are free for a device.
func (u *unit) canPut(id iot.DeviceID, set []credentialRow) error {
	seen := make(map[credentialKey]bool, len(set))
	for i := range set {
		k := set[i].key
		if !storable(k.credentialType, k.authID) {
			return errText
		}
		owner, taken := u.owners[k]
		if taken && owner != id || seen[k] {
			return iot.Errorf(iot.ErrExists, "credentials[%d]: (type, auth-id) is in use already", i)
		}
		seen[k] = true
	}
	return nil
}

// put replaces the credentials of a device.
func (u *unit) put(d *device, set []credentialRow, version string) {
	u.disown(d)
	for i := range set {
		u.owners[set[i].key] = d.record.ID
		d.owned = append(d.owned, set[i].key)
	}
	d.replaced, d.credentials = true, set
	d.credentialsVersion, d.dirty = version, true
}
