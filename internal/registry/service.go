package registry

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"slices"
	"time"
	"unicode"

	"github.com/sluice-iot/sluice/internal/iot"
)

// The default patterns of identifiers; each must match as a whole (contract:
// registry, section 2.1).
const (
	TenantIDPattern = `[a-zA-Z0-9\-_.]+`
	DeviceIDPattern = `[a-zA-Z0-9\-_.:=]+`
)

// maxID is the longest identifier in bytes, the size of the reference's columns.
const maxID = 256

var (
	passwordAuthID = regexp.MustCompile(`^[a-zA-Z0-9\-_=.]+$`)
	typeName       = regexp.MustCompile(`^[a-z0-9-]+$`)
)

// Options are the rules that an installation may change; the zero value is
// the reference's.
type Options struct {
	TenantIDPattern     string     // "" = [TenantIDPattern]
	DeviceIDPattern     string     // "" = [DeviceIDPattern]
	MaxBcryptCost       int        // 0 = [MaxBcryptCost]
	HashFunctions       []string   // names accepted for hashes that are handed in; empty = all
	MaxDevicesPerTenant int64      // for tenants without a limit of their own; <= 0 = unlimited
	Passwords           *Passwords // nil = NewPasswords(MaxBcryptCost, 0)
	Now                 func() time.Time
}

// Service applies the rules of the registry over a [Store]. Its errors carry
// the text for the caller and wrap iot.ErrInvalid, ErrForbidden, ErrNotFound,
// ErrExists or ErrVersion, besides what the store reports. Safe for concurrent use.
type Service struct {
	store    Backend
	options  Options
	tenantID *regexp.Regexp
	deviceID *regexp.Regexp
}

// New returns a Service. The error names the pattern that is no regular expression.
func New(store Backend, o Options) (*Service, error) {
	o.TenantIDPattern = cmp.Or(o.TenantIDPattern, TenantIDPattern)
	o.DeviceIDPattern = cmp.Or(o.DeviceIDPattern, DeviceIDPattern)
	o.MaxBcryptCost = cmp.Or(o.MaxBcryptCost, MaxBcryptCost)
	if o.Passwords == nil {
		o.Passwords = NewPasswords(o.MaxBcryptCost, 0)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Service{store: store, options: o}
	var err error
	if s.tenantID, err = regexp.Compile(`^(?:` + o.TenantIDPattern + `)$`); err != nil {
		return nil, fmt.Errorf("tenant id pattern: %w", err)
	}
	if s.deviceID, err = regexp.Compile(`^(?:` + o.DeviceIDPattern + `)$`); err != nil {
		return nil, fmt.Errorf("device id pattern: %w", err)
	}
	return s, nil
}

// Passwords returns what hashes and verifies passwords here.
func (s *Service) Passwords() *Passwords { return s.options.Passwords }

// Read answers a [Query]; see [Store.Read]. The tenant's subject DN is brought
// into canonical form first, and one that is no DN is iot.ErrInvalid; so is
// the auth-id of an x509-cert credential, where a text that is no DN stays.
func (s *Service) Read(ctx context.Context, q Query) (Snapshot, error) {
	if q.Tenant.ID == "" && q.Tenant.SubjectDN != "" {
		dn, err := CanonicalDN(q.Tenant.SubjectDN)
		if err != nil {
			return Snapshot{}, iot.Errorf(iot.ErrInvalid, "subject-dn: %v", err)
		}
		q.Tenant.SubjectDN = dn
	}
	if q.Type == iot.X509Cert {
		q.AuthID = canonicalOrSame(q.AuthID)
	}
	return s.store.Read(ctx, q)
}

// CheckTenantID returns iot.ErrInvalid for an id that does not match the pattern.
func (s *Service) CheckTenantID(id iot.TenantID) error {
	return checkID("tenant", string(id), s.tenantID, s.options.TenantIDPattern)
}

// CheckDeviceID returns iot.ErrInvalid for an id that does not match the pattern.
func (s *Service) CheckDeviceID(id iot.DeviceID) error {
	return checkID("device", string(id), s.deviceID, s.options.DeviceIDPattern)
}

func checkID(what, id string, pattern *regexp.Regexp, text string) error {
	switch {
	case len(id) > maxID:
		return iot.Errorf(iot.ErrInvalid, "%s id has %d bytes, at most %d are allowed", what, len(id), maxID)
	case !pattern.MatchString(id):
		return iot.Errorf(iot.ErrInvalid, "%s id %.60q does not match the pattern %s", what, id, text)
	case hasControl(id): // a pattern of the installation's may allow too much
		return iot.Errorf(iot.ErrInvalid, "%s id holds control characters", what)
	}
	return nil
}

func (s *Service) checkIDs(tenant iot.TenantID, device iot.DeviceID) error {
	if err := s.CheckTenantID(tenant); err != nil {
		return err
	}
	return s.CheckDeviceID(device)
}

func hasControl(s string) bool {
	return slices.ContainsFunc([]rune(s), unicode.IsControl)
}

// now is the time of a change: UTC, in milliseconds.
func (s *Service) now() time.Time {
	return s.options.Now().UTC().Truncate(time.Millisecond)
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func invalid(format string, args ...any) error {
	return iot.Errorf(iot.ErrInvalid, format, args...)
}
