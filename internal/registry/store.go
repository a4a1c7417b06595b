package registry

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Store keeps entities. It is written for implementors: the rules (what is
// valid, how secrets merge) are applied before; a store adds what only a
// transaction can promise.
//
// Every method is one transaction and safe for concurrent use. Arguments are
// not kept or changed; results belong to the caller. Versions are opaque,
// non-empty strings that the caller makes. A parameter ifVersion that is not
// empty must equal the stored version, else iot.ErrVersion; a missing entity is
// iot.ErrNotFound even then. A database that is down or busy is
// iot.ErrUnavailable; an ended ctx is iot.ErrTimeout or context.Canceled.
// Errors carry a text for the caller ([iot.Errorf]) and no internals.
//
// Every change that succeeds increments the tenant's sequence by one and adds
// the matching [Change] in the same transaction, so that the numbers 1, 2, 3, ...
// of a tenant are dense and in commit order; a failed one does neither. The
// sequence outlives the tenant.
//
// Devices outlive their tenant too: while it is gone they can only be deleted,
// and creating it again shows them again (contract: registry, section 6).
type Store interface {
	// CreateTenant adds a tenant. iot.ErrExists when the id is taken or another
	// tenant's alias, when the alias is another tenant's alias or id, or when a trust anchor has the subject DN of
	// another tenant's anchor, unless both tenants have the same non-empty
	// TrustAnchorGroup. DNs are canonical and compared byte by byte.
	CreateTenant(ctx context.Context, t TenantRecord) error
	// Tenant returns a tenant by its id, never by its alias.
	Tenant(ctx context.Context, id iot.TenantID) (TenantRecord, error)
	// UpdateTenant replaces the tenant t.ID; t.Updated is the time of the
	// change and t.Created is ignored. iot.ErrExists as in CreateTenant.
	UpdateTenant(ctx context.Context, t TenantRecord, ifVersion string) error
	// DeleteTenant removes the tenant only, not its devices.
	DeleteTenant(ctx context.Context, id iot.TenantID, ifVersion string, at time.Time) error

	// CreateDevice adds a device with an empty set of credentials of version
	// credentialsVersion. In this order: iot.ErrNotFound when the tenant does
	// not exist, iot.ErrForbidden when maxDevices >= 0 and the tenant has that
	// many devices or more, iot.ErrExists.
	CreateDevice(ctx context.Context, d DeviceRecord, credentialsVersion string, maxDevices int64) error
	// Device returns a device; iot.ErrNotFound when it or its tenant does not exist.
	Device(ctx context.Context, tenant iot.TenantID, id iot.DeviceID) (DeviceRecord, error)
	// UpdateDevice replaces d.Device and d.Version. Of d.Status only Updated is
	// read; the other members keep what is stored.
	UpdateDevice(ctx context.Context, d DeviceRecord, ifVersion string) error
	// DeleteDevice removes a device and its credentials, whether or not the
	// tenant still exists. One change, of kind DeviceChanged.
	DeleteDevice(ctx context.Context, tenant iot.TenantID, id iot.DeviceID, ifVersion string, at time.Time) error
	// DeleteDevices removes all devices of the tenant and their credentials,
	// whether or not there is any. One change, of kind DevicesDeleted.
	DeleteDevices(ctx context.Context, tenant iot.TenantID, at time.Time) error

	// Credentials returns all credentials of a device, in the order they were
	// put; iot.ErrNotFound when the device or its tenant does not exist.
	Credentials(ctx context.Context, tenant iot.TenantID, device iot.DeviceID) (CredentialsRecord, error)
	// PutCredentials replaces all credentials of a device. iot.ErrExists when
	// another device of the tenant has one of the (type, auth-id) pairs.
	PutCredentials(ctx context.Context, c CredentialsRecord, ifVersion string, at time.Time) error

	// Read answers one [Query] from one consistent state.
	Read(ctx context.Context, q Query) (Snapshot, error)
}

// Feed tells what changed. A store that is a Store is also a Feed.
type Feed interface {
	// Changes returns at most max (>= 1) changes: of a tenant in
	// after.Sequences those with a higher sequence, of every other tenant those
	// at or after after.Since (a zero Since means none). One tenant's changes
	// come in the order of their sequence. more reports that some were left
	// out. Changes are kept for [FeedRetention]; older ones may be gone, which
	// shows as a gap in the tenant's sequence.
	Changes(ctx context.Context, after Position, max int) (changes []Change, more bool, err error)
}

// FeedRetention is how long a change is kept at least: longer than a
// registration assertion lives.
const FeedRetention = 25 * time.Hour

// Position is where a reader of the feed stands.
type Position struct {
	Sequences map[iot.TenantID]uint64
	Since     time.Time
}

// TenantRecord is a stored tenant.
type TenantRecord struct {
	ID      iot.TenantID
	Tenant  iot.Tenant
	Version string
	Created time.Time
	Updated time.Time // zero until the first update
}

// DeviceRecord is a stored device.
type DeviceRecord struct {
	Tenant  iot.TenantID
	ID      iot.DeviceID
	Device  iot.Device
	Status  iot.DeviceStatus
	Version string
}

// CredentialsRecord is the stored set of a device's credentials.
type CredentialsRecord struct {
	Tenant  iot.TenantID
	Device  iot.DeviceID
	Set     []iot.Credential // never nil when read
	Version string
}

// TenantKey names a tenant by one of its members.
type TenantKey struct {
	ID        iot.TenantID // or an alias
	SubjectDN string       // canonical DN of a trust anchor; ambiguous = not found
}

// Query asks for what an admission or an assertion needs. The credential is
// looked up when Type is not empty; then the device that owns it authenticates,
// and Device, where it is given and differs, is acted for by that one as its
// gateway. Without Type, Device is asked about, and Gateway, where given,
// acts for it. With neither, only the tenant is read.
type Query struct {
	Tenant  TenantKey
	Type    string // credential type
	AuthID  string
	Device  iot.DeviceID
	Gateway iot.DeviceID // ignored when Type is given
}

// Snapshot is one consistent state. A tenant that does not exist is an error
// of Read (iot.ErrNotFound); everything else that is missing is nil here.
type Snapshot struct {
	Tenant   TenantRecord
	Sequence uint64 // the tenant's change counter at this state; 0 = never changed

	Credential *iot.Credential // as stored, secrets included
	Owner      iot.DeviceID    // the device that Credential belongs to
	Verified   []Verified      // what is kept beside secrets of Credential, expired or not

	DeviceID  iot.DeviceID // the device asked about: Query.Device, else Owner
	Device    *DeviceRecord
	GatewayID iot.DeviceID // "" = no gateway acts
	Gateway   *DeviceRecord

	// Members lists, sorted, the devices that are now member of one of
	// Device's ViaGroups.
	Members []iot.DeviceID
}

// ChangeKind is what a [Change] is about.
type ChangeKind string

// The kinds of changes, with the types of Hono's notifications (contract:
// messaging, section 14).
const (
	TenantChanged      ChangeKind = "tenant-change-v1"
	DeviceChanged      ChangeKind = "device-change-v1"
	CredentialsChanged ChangeKind = "credentials-change-v1"
	DevicesDeleted     ChangeKind = "all-devices-of-tenant-deleted-v1"
)

// The values of Change.Change.
const (
	Create = "CREATE"
	Update = "UPDATE"
	Delete = "DELETE"
)

// Change is one row of the feed.
type Change struct {
	Tenant   iot.TenantID
	Sequence uint64 // dense per tenant, from 1
	Kind     ChangeKind
	Device   iot.DeviceID // for DeviceChanged and CredentialsChanged
	Change   string       // Create, Update or Delete, for TenantChanged and DeviceChanged; else ""
	Enabled  bool         // effective value after the change; false after a deletion
	// InvalidateCache is the tenant's ext member invalidate-cache-on-update; true after a deletion.
	InvalidateCache bool
	At              time.Time // UTC, milliseconds
}
