package dynamostore

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry"
)

// stageAtOnce is how many credentials one request stages.
const stageAtOnce = 50

// large reports whether the old and the new set of credentials do not fit one
// transaction together.
func (f *draft) large(m *mutation) bool {
	if m.op != putCredentialsOp {
		return false
	}
	keys := make(map[ref]bool, len(m.credentials.Set))
	for n := range m.credentials.Set {
		keys[ref{m.credentials.Set[n].Type, m.credentials.Set[n].AuthID}] = true
	}
	bytes := 0
	for n := range m.docs {
		bytes += len(m.docs[n])
	}
	if d := f.devices[m.d.ID]; d != nil {
		for _, r := range d.refs {
			keys[r] = true
		}
	}
	return len(keys) > maxWrites-2 || bytes > maxBytes-maxItem
}

// planLarge puts a set of any size. The credentials are staged first: added to
// the items of their auth-ids under a generation that no device has yet, where
// they count for nothing. The change then gives the device that generation.
// That no other device took one of the auth-ids meanwhile is read after the
// counter, so that it holds when the change succeeds.
func (s *Store) planLarge(ctx context.Context, f *draft, m *mutation) (*change, error) {
	old := f.devices[m.d.ID]
	if old == nil {
		return nil, errNoDevice
	}
	if m.ifVersion != "" && m.ifVersion != old.credentials {
		return nil, errVersion
	}
	if err := f.reload(ctx); err != nil {
		return nil, err
	}
	d := *old
	d.sequence = f.st.sequence + 1
	r := &result{id: d.rec.ID, auths: make(map[key]item)}
	if err := f.putCredentials(m, nil, &d, r); err != nil {
		return nil, err
	}
	if missing := f.unstaged(r, m.generation); len(missing) > 0 {
		if err := s.stage(ctx, missing, m.generation); err != nil {
			return nil, err
		}
		return nil, errTaken // read everything again: the set is complete now
	}
	m.after = func(ctx context.Context) { s.unstage(ctx, old, f.st.epoch, r.auths) }
	c := change{next: f.st, changes: []registry.Change{{Tenant: f.t, Kind: registry.CredentialsChanged, Device: d.rec.ID, At: m.at}}}
	i, err := d.item()
	if err != nil {
		return nil, err
	}
	c.ops = append(c.ops, f.deviceOp(old, d.rec.ID, i))
	for _, o := range r.ops {
		if o.check {
			c.ops = append(c.ops, o)
		}
	}
	if len(c.ops) > maxWrites-1 {
		return nil, errTaken // so many are being moved just now
	}
	for _, o := range old.refs { // the others no longer count
		k := authKey(f.t, f.st.epoch, o.Type, o.AuthID)
		if _, stays := r.auths[k]; !stays && len(c.ops) < maxWrites-1 {
			c.ops = append(c.ops, op{key: k})
		}
	}
	return &c, nil
}

// unstaged lists the writes of r whose slots are not in the table yet.
func (f *draft) unstaged(r *result, generation string) []op {
	return slices.DeleteFunc(slices.Clone(r.ops), func(o op) bool {
		return o.check || slotOf(f.auths[o.key], generation) != nil
	})
}

// reload reads the items of the auth-ids, which no condition of the change
// will look at again, so that they are not those of before a transaction that the
// counter tells of already.
func (f *draft) reload(ctx context.Context) error {
	for keys := range slices.Chunk(f.authKeys, maxBatchGet) {
		if err := f.reloadSome(ctx, keys); err != nil {
			return err
		}
	}
	var owners []iot.DeviceID
	for _, i := range f.auths {
		for _, sl := range slots(i) {
			owners = append(owners, sl.device)
		}
	}
	return f.loadDevices(ctx, owners, nil, nil)
}

// reloadSome halves what is too heavy for one transaction.
func (f *draft) reloadSome(ctx context.Context, keys []key) error {
	got, ok, err := f.s.getAtOnce(ctx, keys)
	if half := len(keys) / 2; half > 0 && hasCode(err, "ValidationException") {
		if err := f.reloadSome(ctx, keys[:half]); err != nil {
			return err
		}
		return f.reloadSome(ctx, keys[half:])
	}
	if err != nil {
		return err
	}
	if !ok {
		return errBusy
	}
	for _, k := range keys {
		f.auths[k] = got[k]
	}
	return nil
}

// stage adds slots to items, and removes none: it may be that of a change
// under way.
func (s *Store) stage(ctx context.Context, ops []op, generation string) error {
	name := slotPrefix + generation
	var writes []types.TransactWriteItem
	bytes := 0
	for i, o := range ops {
		size := o.put.size()
		if size > maxItem {
			return errItemSize()
		}
		bytes += size
		writes = append(writes, types.TransactWriteItem{Update: &types.Update{TableName: &s.table, Key: o.key.item(),
			UpdateExpression:          aws.String("SET #slot = :slot"),
			ExpressionAttributeNames:  map[string]string{"#slot": name},
			ExpressionAttributeValues: item{":slot": o.put[name]},
		}})
		if len(writes) < stageAtOnce && bytes < maxBytes-maxItem && i < len(ops)-1 {
			continue
		}
		if _, err := s.transact(ctx, writes, newToken()); err != nil {
			return err
		}
		writes, bytes = nil, 0
	}
	return nil
}

// unstage takes the slots of the set that was replaced out of items that stay.
// They count no longer, so an error only leaves them where they are.
func (s *Store) unstage(ctx context.Context, old *device, epoch int64, stay map[key]item) {
	var writes []types.TransactWriteItem
	for _, r := range old.refs {
		k := authKey(old.rec.Tenant, epoch, r.Type, r.AuthID)
		if _, stays := stay[k]; !stays {
			continue
		}
		writes = append(writes, types.TransactWriteItem{Update: &types.Update{TableName: &s.table, Key: k.item(),
			UpdateExpression:         aws.String("REMOVE #slot"),
			ConditionExpression:      aws.String("attribute_exists(#slot)"),
			ExpressionAttributeNames: map[string]string{"#slot": slotPrefix + old.generation},
		}})
	}
	for some := range slices.Chunk(writes, maxWrites) {
		if _, err := s.transact(ctx, some, newToken()); err != nil {
			return
		}
	}
}
