package pgstore

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// write queues what a unit changed: removals first, because a removed auth-id
// may belong to another device now.
func (u *unit) write(b *pgx.Batch) error {
	ids := slices.Sorted(maps.Keys(u.rows))
	u.clear(b, ids)
	var w rowsOf
	for _, id := range ids {
		if err := w.add(u, u.rows[id]); err != nil {
			return err
		}
	}
	w.queue(b, string(u.tenant))
	if len(u.changes) > 0 {
		b.Queue(`UPDATE counters SET sequence = $2, devices = $3 WHERE tenant = $1`, string(u.tenant), u.sequence, u.devices)
		queueChanges(b, u.changes)
	}
	return nil
}

// clearAll queues the removal of every device of the tenant.
func (u *unit) clearAll(b *pgx.Batch) {
	for _, table := range []string{"devices", "members", "vias", "credentials", "index_keys"} {
		b.Queue(`DELETE FROM `+table+` WHERE tenant = $1`, string(u.tenant))
	}
}

// clear queues the removals.
func (u *unit) clear(b *pgx.Batch, ids []iot.DeviceID) {
	var gone, stale, uncredited []string
	for _, id := range ids {
		d := u.rows[id]
		if !d.stored {
			continue
		}
		if !d.present {
			gone = append(gone, string(id))
		}
		if !d.present || d.newDoc {
			stale = append(stale, string(id))
		}
		if !d.present || d.replaced {
			uncredited = append(uncredited, string(id))
		}
	}
	remove := func(from, column string, ids []string) {
		if len(ids) > 0 {
			b.Queue(`DELETE FROM `+from+` x USING unnest($2::text[]) k (id) WHERE x.tenant = $1 AND x.`+column+` = k.id`, string(u.tenant), ids)
		}
	}
	remove("devices", "id", gone)
	remove("members", "device", stale)
	remove("vias", "device", stale)
	if len(u.paths) > 0 {
		remove("index_keys", "device", stale)
	}
	remove("credentials", "device", uncredited)
}

// rowsOf collects rows as columns, the way unnest takes them.
type rowsOf struct {
	ids                   []string
	docs                  [][]byte
	groups                []*string
	versions, credentials []string
	created, updated      []int64
	provisioned, notified []bool

	touched touchedRows

	memberGroups, memberDevices []string
	viaGateways, viaDevices     []string
	keys                        indexRows

	credentialTypes, credentialAuthIDs, credentialDevices []string
	positions                                             []int32
	credentialDocs                                        [][]byte
}

func (w *rowsOf) add(u *unit, d *device) error {
	if !d.present || !d.dirty {
		return nil
	}
	id := string(d.record.ID)
	for i, c := range d.credentials {
		w.credentialTypes, w.credentialAuthIDs = append(w.credentialTypes, c.key.credentialType), append(w.credentialAuthIDs, c.key.authID)
		w.credentialDevices, w.positions = append(w.credentialDevices, id), append(w.positions, int32(i))
		w.credentialDocs = append(w.credentialDocs, c.doc)
	}
	if !d.newDoc {
		w.touched.add(d)
		return nil
	}
	doc, err := json.Marshal(&d.record.Device)
	if err != nil {
		return err
	}
	groups, err := encodeGroups(d.record.Device.ViaGroups)
	if err != nil {
		return err
	}
	status := &d.record.Status
	w.ids, w.docs, w.groups = append(w.ids, id), append(w.docs, doc), append(w.groups, groups)
	w.versions, w.credentials = append(w.versions, d.record.Version), append(w.credentials, d.credentialsVersion)
	w.created, w.updated = append(w.created, millis(status.Created.Time)), append(w.updated, millis(status.Updated.Time))
	w.provisioned, w.notified = append(w.provisioned, status.AutoProvisioned), append(w.notified, status.AutoProvisioningNotificationSent)
	for _, group := range distinct(d.record.Device.MemberOf) {
		w.memberGroups, w.memberDevices = append(w.memberGroups, group), append(w.memberDevices, id)
	}
	for _, gateway := range distinct(d.record.Device.Via) {
		w.viaGateways, w.viaDevices = append(w.viaGateways, string(gateway)), append(w.viaDevices, id)
	}
	w.keys.add(u.paths, string(u.tenant), id, doc)
	return nil
}

func (w *rowsOf) queue(b *pgx.Batch, tenant string) {
	if len(w.ids) > 0 {
		b.Queue(`INSERT INTO devices (tenant, id, doc, via_groups, version, credentials_version, created, updated, auto_provisioned, notification_sent)
			SELECT $1, id, doc, via_groups::json, version, credentials_version, created, updated, auto_provisioned, notification_sent
			FROM unnest($2::text[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::boolean[], $10::boolean[])
				n (id, doc, via_groups, version, credentials_version, created, updated, auto_provisioned, notification_sent)
			ON CONFLICT (tenant, id) DO UPDATE SET doc = excluded.doc, via_groups = excluded.via_groups, version = excluded.version,
				credentials_version = excluded.credentials_version, created = excluded.created, updated = excluded.updated,
				auto_provisioned = excluded.auto_provisioned, notification_sent = excluded.notification_sent`,
			tenant, w.ids, w.docs, w.groups, w.versions, w.credentials, w.created, w.updated, w.provisioned, w.notified)
	}
	w.touched.queue(b, tenant)
	if len(w.memberGroups) > 0 {
		b.Queue(`INSERT INTO members (tenant, gateway_group, device) SELECT $1, g, d FROM unnest($2::text[], $3::text[]) n (g, d)`,
			tenant, w.memberGroups, w.memberDevices)
	}
	if len(w.viaGateways) > 0 {
		b.Queue(`INSERT INTO vias (tenant, gateway, device) SELECT $1, g, d FROM unnest($2::text[], $3::text[]) n (g, d)`,
			tenant, w.viaGateways, w.viaDevices)
	}
	w.keys.queue(b)
	if len(w.credentialTypes) > 0 {
		b.Queue(`INSERT INTO credentials (tenant, type, auth_id, device, position, doc)
			SELECT $1, t, a, d, p, doc FROM unnest($2::text[], $3::text[], $4::text[], $5::integer[], $6::bytea[]) n (t, a, d, p, doc)`,
			tenant, w.credentialTypes, w.credentialAuthIDs, w.credentialDevices, w.positions, w.credentialDocs)
	}
}

// touchedRows are devices of which only the short columns change.
type touchedRows struct {
	ids, versions, credentials []string
	updated                    []int64
	notified                   []bool
}

func (w *touchedRows) add(d *device) {
	w.ids, w.versions = append(w.ids, string(d.record.ID)), append(w.versions, d.record.Version)
	w.credentials, w.updated = append(w.credentials, d.credentialsVersion), append(w.updated, millis(d.record.Status.Updated.Time))
	w.notified = append(w.notified, d.record.Status.AutoProvisioningNotificationSent)
}

func (w *touchedRows) queue(b *pgx.Batch, tenant string) {
	if len(w.ids) == 0 {
		return
	}
	b.Queue(`UPDATE devices d SET version = n.version, credentials_version = n.credentials_version, updated = n.updated, notification_sent = n.notified
		FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[], $6::boolean[]) n (id, version, credentials_version, updated, notified)
		WHERE d.tenant = $1 AND d.id = n.id`, tenant, w.ids, w.versions, w.credentials, w.updated, w.notified)
}

// encodeGroups returns viaGroups as a JSON array, nil for none.
func encodeGroups(groups []string) (*string, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(groups)
	s := string(b)
	return &s, err
}

// encodeCredentials returns the rows of a set.
func encodeCredentials(set []iot.Credential) ([]credentialRow, error) {
	rows := make([]credentialRow, len(set))
	for i := range set {
		doc, err := json.Marshal(&set[i])
		if err != nil {
			return nil, err
		}
		rows[i] = credentialRow{key: credentialKey{set[i].Type, set[i].AuthID}, doc: doc}
	}
	return rows, nil
}

// queueChanges queues the rows of the feed, in their order.
func queueChanges(b *pgx.Batch, changes []registry.Change) {
	n := len(changes)
	tenants, devices, kinds, names := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	sequences, at := make([]int64, n), make([]int64, n)
	enabled, invalidate := make([]bool, n), make([]bool, n)
	for i, c := range changes {
		tenants[i], devices[i], kinds[i], names[i] = string(c.Tenant), string(c.Device), string(c.Kind), c.Change
		sequences[i], at[i], enabled[i], invalidate[i] = int64(c.Sequence), millis(c.At), c.Enabled, c.InvalidateCache
	}
	b.Queue(`INSERT INTO feed (tenant, sequence, kind, device, change, enabled, invalidate, at)
		SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::boolean[], $8::bigint[])
			n (tenant, sequence, kind, device, change, enabled, invalidate, at) ORDER BY sequence`,
		tenants, sequences, kinds, devices, names, enabled, invalidate, at)
}

// texts are parameters to look for; what cannot be stored is left out.
func texts[T ~string](all []T) []string {
	out := make([]string, 0, len(all))
	for _, s := range all {
		if storable(string(s)) {
			out = append(out, string(s))
		}
	}
	return out
}

func keyTexts(keys []credentialKey) (types, authIDs []string) {
	for _, k := range keys {
		if storable(k.credentialType, k.authID) {
			types, authIDs = append(types, k.credentialType), append(authIDs, k.authID)
		}
	}
	return types, authIDs
}

func distinct[T ~string](all []T) []T {
	return slices.Compact(slices.Sorted(slices.Values(all)))
}
