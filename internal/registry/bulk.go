package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/iot"
)

// batchTimeout bounds one call of [Loader.ApplyDevices]. Hashing passwords
// before it may take longer.
const batchTimeout = 30 * time.Second

// BulkItem is one change of one device.
type BulkItem struct {
	Op     WriteOp
	ID     iot.DeviceID // "" = a random UUID, for CreateOp only
	Device iot.Device   // for SetEnabledOp only Enabled counts
	// Credentials replace those on record, without looking at them: secrets
	// need their content. nil leaves them; for CreateOp, UpdateOp and PutOp.
	Credentials []iot.Credential
	// Generate adds a hashed-password credential with a new password.
	Generate        bool
	AuthID          string // of that credential; "" = ID
	IfVersion       string // not for CreateOp
	AutoProvisioned bool   // kept when the device is created
}

// PlainPasswords counts the passwords of an item that have to be hashed slowly.
func (i *BulkItem) PlainPasswords() int {
	n := 0
	for _, c := range i.Credentials {
		for _, s := range c.Secrets {
			if c.Type == iot.HashedPassword && s.PwdPlain != "" {
				n++
			}
		}
	}
	return n
}

// BulkResult is what became of a [BulkItem].
type BulkResult struct {
	ID       iot.DeviceID
	Version  string // of the device; "" for SetEnabledOp and DeleteOp
	AuthID   string // of the generated password
	Password string // generated; told this once
	Err      error  // nil = done
}

// ApplyDevices makes up to [MaxBatch] changes of devices of one tenant, in
// order, each by the rules of the single operation, with a result for each.
// err is about the call as a whole, after which it is not known what was done:
// iot.ErrNotFound for the tenant, iot.ErrUnavailable, iot.ErrTimeout.
func (s *Service) ApplyDevices(ctx context.Context, tenant iot.TenantID, items []BulkItem) ([]BulkResult, error) {
	if len(items) > MaxBatch {
		return nil, invalid("%d changes at once, at most %d are allowed", len(items), MaxBatch)
	}
	if err := s.CheckTenantID(tenant); err != nil {
		return nil, err
	}
	t, err := s.store.Tenant(ctx, tenant)
	if err != nil {
		return nil, err
	}
	b := batch{service: s, tenant: t, now: s.now(), results: make([]BulkResult, len(items))}
	for i := range items {
		b.add(i, &items[i])
	}
	if err := b.hash(ctx); err != nil {
		return nil, err
	}
	return b.results, b.apply(ctx)
}

// batch is one call of ApplyDevices.
type batch struct {
	service *Service
	tenant  TenantRecord
	now     time.Time
	results []BulkResult
	writes  []DeviceWrite
	at      []int // the item that a write is of
}

// add turns an item into a write, or into a result that says what is wrong.
func (b *batch) add(i int, item *BulkItem) {
	r := &b.results[i]
	r.ID = item.ID
	if r.ID == "" && item.Op == CreateOp {
		r.ID = iot.DeviceID(newUUID())
	}
	w, err := b.write(item, r)
	if err != nil {
		*r = BulkResult{ID: r.ID, Err: err}
		return
	}
	b.writes = append(b.writes, w)
	b.at = append(b.at, i)
}

func (b *batch) write(item *BulkItem, r *BulkResult) (DeviceWrite, error) {
	w := DeviceWrite{Op: item.Op, IfVersion: item.IfVersion, CredentialsVersion: newUUID()}
	w.Device = DeviceRecord{Tenant: b.tenant.ID, ID: r.ID, Device: item.Device, Version: newUUID()}
	w.Device.Status = iot.DeviceStatus{
		Created: iot.Timestamp{Time: b.now}, Updated: iot.Timestamp{Time: b.now}, AutoProvisioned: item.AutoProvisioned,
	}
	if r.ID == "" {
		return w, invalid("member id is missing")
	}
	if err := b.service.CheckDeviceID(r.ID); err != nil {
		return w, err
	}
	switch item.Op {
	case CreateOp, UpdateOp, PutOp:
		if err := checkDevice(&w.Device.Device); err != nil {
			return w, err
		}
		r.Version = w.Device.Version
	case SetEnabledOp, DeleteOp:
		if item.Credentials != nil || item.Generate {
			return w, invalid("credentials go with create, update and put only")
		}
	default:
		return w, invalid("unknown operation %d", item.Op)
	}
	if item.Op == CreateOp && item.IfVersion != "" {
		return w, invalid("if-match does not go with create")
	}
	var err error
	w.Credentials, err = b.credentials(item, r)
	return w, err
}

// credentials checks and completes an item's credentials; nil = none.
func (b *batch) credentials(item *BulkItem, r *BulkResult) (*CredentialsRecord, error) {
	if item.Credentials == nil && !item.Generate {
		return nil, nil
	}
	set := cloneSet(item.Credentials)
	if item.Generate {
		r.AuthID = item.AuthID
		if r.AuthID == "" {
			r.AuthID = string(r.ID)
		}
		password, secret := GeneratePassword()
		r.Password = password
		set = append(set, iot.Credential{Type: iot.HashedPassword, AuthID: r.AuthID, Secrets: []iot.Secret{secret}})
	}
	if err := checkCredentialsLimit(&b.tenant.Tenant, len(set)); err != nil {
		return nil, err
	}
	if err := b.service.checkSet(set); err != nil {
		return nil, err
	}
	for i := range set {
		for j := range set[i].Secrets {
			secret := &set[i].Secrets[j]
			if !hasContent(set[i].Type, secret) {
				return nil, invalid("[%d]: secrets[%d]: has only an id; here secrets need their content", i, j)
			}
			if secret.ID == "" {
				secret.ID = newUUID()
			}
		}
	}
	return &CredentialsRecord{Tenant: b.tenant.ID, Device: r.ID, Set: set, Version: newUUID()}, nil
}

// hash hashes plain passwords, several at once, but with no more than half of
// the turns that there are: devices that log in need some, too.
func (b *batch) hash(ctx context.Context) error {
	var plain []*iot.Credential
	for i := range b.writes {
		if c := b.writes[i].Credentials; c != nil {
			for j := range c.Set {
				if slices.ContainsFunc(c.Set[j].Secrets, func(s iot.Secret) bool { return s.PwdPlain != "" }) {
					plain = append(plain, &c.Set[j])
				}
			}
		}
	}
	work := make(chan *iot.Credential, len(plain))
	for _, c := range plain {
		work <- c
	}
	close(work)
	var wg sync.WaitGroup
	workers := min(len(plain), max(1, cap(b.service.options.Passwords.turns)/2))
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for c := range work {
				one := []iot.Credential{*c}
				if errs[w] = b.service.hashPlain(ctx, one, one); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) apply(ctx context.Context) error {
	if len(b.writes) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	errs, err := b.service.store.ApplyDevices(ctx, b.tenant.ID, b.writes, b.service.maxDevices(&b.tenant.Tenant))
	if err != nil {
		return err
	}
	if len(errs) != len(b.writes) {
		return fmt.Errorf("the store gave %d results for %d writes", len(errs), len(b.writes))
	}
	for i, err := range errs {
		if err != nil {
			r := &b.results[b.at[i]]
			*r = BulkResult{ID: r.ID, Err: err}
		}
	}
	return nil
}
