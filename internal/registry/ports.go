package registry

import (
	"context"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Backend is everything that a database must do for the registry. Each part
// has its tests in storetest; the rules above [Store] hold for all of them.
type Backend interface {
	Store
	Finder
	Loader
	Prover
	Feed
	// Observe has f called with the changes of every transaction that commits,
	// with their sequences: after the commit, in the goroutine of the call that
	// made them and before that call returns, so that f's time is the caller's.
	// It is set once, before the store is used.
	Observe(f func(ctx context.Context, changes []Change))
}

// Finder searches. What matches and in which order is decided by [Search],
// the same for every store.
type Finder interface {
	// SearchTenants returns one page of the tenants that match.
	SearchTenants(ctx context.Context, s Search) (TenantPage, error)
	// SearchDevices returns one page of a tenant's devices that match;
	// iot.ErrNotFound when the tenant does not exist.
	SearchDevices(ctx context.Context, tenant iot.TenantID, s Search) (DevicePage, error)
	// Export returns at most max (>= 1) devices of a tenant with their
	// credentials, secrets included, in the order of their ids from the first
	// one after the given id. Less than max means that there are no more. It
	// does not ask whether the tenant exists.
	Export(ctx context.Context, tenant iot.TenantID, after iot.DeviceID, max int) ([]FullDevice, error)
}

// Search is a question about tenants or devices (contract: registry, section 8).
//
// A store may answer filters from indexes: on the id, and on the paths that it
// was opened with (Options.Indexes). Otherwise it reads documents, at most
// MaxScan of them: with more to read the search is refused with iot.ErrInvalid
// and a text that names the limit and the path that should be indexed. A search
// without filters, sorting and IsGateway reads only the page, whatever the size
// of the tenant.
type Search struct {
	Filters   []Filter // all must match
	Sort      []Order  // then by id, ascending
	Offset    int      // rows before the page, >= 0
	Limit     int      // rows of the page, >= 1
	IsGateway *bool    // devices only: named in the via of a device of the tenant, or member of a group
	MaxScan   int      // documents read at most; 0 = [DefaultMaxScan]
	// Done, when closed, says that nobody waits for the answer any more: the
	// search ends before its next document with iot.ErrTimeout. nil = never.
	Done <-chan struct{}
}

// DefaultMaxScan is how many documents a search reads where no index helps.
const DefaultMaxScan = 100_000

// Filter is one condition. Path holds the member names from the document's
// root; the path id is the identifier, and status the device's status. An array
// matches when any element does, and a path goes on through the elements of an
// array. Value is a bool, a float64, or a string: case-sensitive, * for any run
// of characters and ? for exactly one. A member that is absent does not match,
// except enabled, which counts as true.
type Filter struct {
	Path  []string
	Value any
}

// Order is one key of sorting. Absent members come first in ascending order,
// then false, true, numbers, strings by bytes.
type Order struct {
	Path       []string
	Descending bool
}

// TenantPage is one page. Total counts all that match, whatever the page.
type TenantPage struct {
	Total   int
	Tenants []TenantRecord
}

// DevicePage is one page. Total counts all that match, whatever the page.
type DevicePage struct {
	Total   int
	Devices []DeviceRecord
}

// FullDevice is a device with its credentials.
type FullDevice struct {
	Device      DeviceRecord
	Credentials CredentialsRecord
}

// Loader changes many devices at once.
type Loader interface {
	// ApplyDevices makes up to MaxBatch writes to devices of one tenant in the
	// given order and returns one result per write: nil, or why that one was
	// not made, with the errors that the single operation has. Writes fail
	// one by one: one that fails leaves no trace and does not disturb the others.
	// Those that succeed may share a transaction. err is about the call as a
	// whole (iot.ErrUnavailable, iot.ErrTimeout): then it is not known which
	// writes were made, and the same call may be made again.
	// iot.ErrNotFound as err when the tenant does not exist. maxDevices as in
	// [Store.CreateDevice].
	//
	// Every write that succeeds adds one change of kind DeviceChanged, and one
	// of kind CredentialsChanged where Credentials were given for a device that
	// existed. A write that changes nothing (SetEnabled to what is) adds none.
	ApplyDevices(ctx context.Context, tenant iot.TenantID, writes []DeviceWrite, maxDevices int64) (results []error, err error)
}

// MaxBatch bounds one call of ApplyDevices.
const MaxBatch = 1000

// WriteOp is what a [DeviceWrite] does.
type WriteOp uint8

// The operations of a bulk request.
const (
	CreateOp     WriteOp = iota + 1 // iot.ErrExists when it is there
	UpdateOp                        // iot.ErrNotFound when it is not
	PutOp                           // create or update
	SetEnabledOp                    // only Device.Device.Enabled is read; iot.ErrNotFound when it is not there
	DeleteOp
)

// DeviceWrite is one write of [Loader.ApplyDevices].
type DeviceWrite struct {
	Op WriteOp
	// Device names the device. Its Version is the new one; Status.Created is
	// the time of a creation, Status.Updated that of a change or deletion, and both
	// are set. AutoProvisioned is kept at a creation.
	Device    DeviceRecord
	IfVersion string // as in the single operations; not for CreateOp
	// Credentials replace those on record; nil leaves them, or makes an empty set.
	Credentials *CredentialsRecord
	// CredentialsVersion is the version of that empty set.
	CredentialsVersion string
}

// Prover keeps what is learnt from provisioning and from verified secrets.
type Prover interface {
	// MarkNotified sets AutoProvisioningNotificationSent of a device that has
	// the version ifVersion, and gives it the new one; an update like any other,
	// with its change. iot.ErrVersion, iot.ErrNotFound.
	MarkNotified(ctx context.Context, tenant iot.TenantID, device iot.DeviceID, ifVersion, version string, at time.Time) error

	// KeepVerified keeps v beside a secret of the credential (type, authID), in
	// place of what was kept for the same secret. It is gone when the
	// credential is put anew or deleted. It moves neither versions nor the
	// tenant's sequence. A credential that is not there is no error.
	KeepVerified(ctx context.Context, tenant iot.TenantID, credentialType, authID string, v Verified) error
}

// Verified is the MAC of a password that was verified against a slow hash. The
// key is not in the store.
type Verified struct {
	SecretID string
	MAC      []byte // at most 64 bytes
	Until    time.Time
}
