package dynamostore_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/dynamostore"
	"github.com/sluice-iot/sluice/internal/iot"
)

// table is the table itself, behind the back of the store.
type table struct {
	t  *testing.T
	db *dynamodb.Client
	o  dynamostore.Options
}

func behind(t *testing.T, o dynamostore.Options) *table {
	return &table{t: t, o: o, db: dynamodb.New(dynamodb.Options{Region: o.Region, Credentials: o.Credentials, BaseEndpoint: &o.Endpoint})}
}

// items returns all items whose partition key begins so.
func (x *table) items(prefix string) []map[string]types.AttributeValue {
	x.t.Helper()
	out, err := x.db.Scan(x.t.Context(), &dynamodb.ScanInput{TableName: &x.o.Table, ConsistentRead: aws.Bool(true),
		FilterExpression:          aws.String("begins_with(pk, :p)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":p": &types.AttributeValueMemberS{Value: prefix}}})
	must(x.t, err)
	return out.Items
}

// expire removes the batches that end at positions, as DynamoDB does with what is past its ttl.
func (x *table) expire(positions ...uint64) {
	x.t.Helper()
	for _, at := range positions {
		out, err := x.db.DeleteItem(x.t.Context(), &dynamodb.DeleteItemInput{TableName: &x.o.Table, ReturnValues: types.ReturnValueAllOld,
			Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "b#T#" + key.Partition.String()},
				"sk": &types.AttributeValueMemberS{Value: fmt.Sprintf("%020d", at)}}})
		if must(x.t, err); len(out.Attributes) == 0 {
			x.t.Fatalf("there is no batch that ends at %d", at)
		}
	}
}

// clocked is a log with a clock of the test's.
type clocked struct {
	*eventstore.Log
	*table
	store *dynamostore.Store
	now   time.Time
	count uint64
}

func newClocked(t *testing.T) *clocked {
	o := options(t)
	c := &clocked{table: behind(t, o), store: open(t, o), now: time.Now().Add(48 * time.Hour)} // the server's own sweeper finds nothing
	c.Log = eventstore.New(c.store, eventstore.Options{Now: func() time.Time { return c.now }})
	return c
}

// add appends a batch of one event.
func (c *clocked) add(ttl time.Duration) {
	c.t.Helper()
	c.count++
	expires := int64(0)
	if ttl > 0 {
		expires = c.now.Add(ttl).UnixMilli()
	}
	out, err := c.Append(c.t.Context(), eventstore.AppendRequest{Records: []eventstore.Record{record(1, c.count, "D", expires)}})
	if must(c.t, err); out.Results[0].Status != 200 {
		c.t.Fatal(out.Results[0].Error)
	}
}

func (c *clocked) read() (positions []uint64) {
	c.t.Helper()
	claims, err := c.Claim(c.t.Context(), eventstore.ClaimRequest{Tenant: "T", Holder: "h"})
	must(c.t, err)
	out, err := c.Read(c.t.Context(), eventstore.ReadRequest{Tenant: "T", Partition: key.Partition, Fence: fence(claims), From: 1})
	must(c.t, err)
	for _, r := range out.Records {
		positions = append(positions, r.Position)
	}
	return positions
}

func (c *clocked) counts() string {
	c.t.Helper()
	s, err := c.Stats(c.t.Context(), "T")
	must(c.t, err)
	return fmt.Sprint(s.Waiting, " waiting, ", s.Bytes/recordSize, " batches' bytes")
}

var recordSize = func() int64 { r := record(1, 1, "D", 0); return int64(r.Size()) }()

func want[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		t.Fatalf("%s: got %s, want %s", what, g, w)
	}
}

// TestTTL checks what DynamoDB is told of a batch's time: seconds, not before the last of its events expires.
func TestTTL(t *testing.T) {
	o := options(t)
	s, x := open(t, o), behind(t, o)
	at := time.Now().Add(48*time.Hour).UnixMilli()/1000*1000 + 1
	must(t, update(s, func(p *eventstore.Partition, w *eventstore.Writes) { add(p, w, 1, at); add(p, w, 1, 0) }))
	items := x.items("b#")
	got, _ := items[0]["ttl"].(*types.AttributeValueMemberN)
	if got == nil || got.Value != fmt.Sprint(at/1000+1) || items[1]["ttl"] != nil {
		t.Fatalf("ttl is %v and %v, want %d and none", items[0]["ttl"], items[1]["ttl"], at/1000+1)
	}
	out, err := x.db.DescribeTimeToLive(t.Context(), &dynamodb.DescribeTimeToLiveInput{TableName: &o.Table})
	if must(t, err); aws.ToString(out.TimeToLiveDescription.AttributeName) != "ttl" {
		t.Fatalf("the table's ttl is %+v", out.TimeToLiveDescription)
	}
}

// TestVanishedRead has DynamoDB remove batches before anybody reads them.
func TestVanishedRead(t *testing.T) {
	c := newClocked(t)
	for _, ttl := range []time.Duration{time.Hour, time.Hour, 0, time.Hour, 0, time.Hour} {
		c.add(ttl)
	}
	c.now = c.now.Add(3 * time.Hour)
	c.expire(1, 2, 4, 6)
	want(t, "before the read", c.counts(), "6 waiting, 6 batches' bytes")
	want(t, "read", c.read(), []uint64{3, 5})
	want(t, "expired", c.Expired(), 4)
	want(t, "after the read", c.counts(), "2 waiting, 4 batches' bytes") // those before the first that is left are subtracted
	p, err := c.store.Partition(t.Context(), key)
	must(t, err)
	want(t, "head and cursor", []uint64{p.Head, p.Cursor}, []uint64{3, 3})
	_, _, err = c.Expire(t.Context(), 0)
	must(t, err)
	want(t, "after a sweep", c.counts(), "2 waiting, 2 batches' bytes")
	_, err = c.Settle(t.Context(), eventstore.SettleRequest{Tenant: "T", Partition: key.Partition, Fence: p.Fence,
		Settlements: []eventstore.Settlement{{From: 3, To: 5, Outcome: eventstore.Accepted}}})
	must(t, err)
	want(t, "after all", c.counts(), "0 waiting, 0 batches' bytes")
	want(t, "batches", len(c.items("b#")), 0)
}

// TestVanishedSweep has nobody read at all: the sweep finds what has gone, and what has not gone yet.
func TestVanishedSweep(t *testing.T) {
	c := newClocked(t)
	for _, ttl := range []time.Duration{time.Hour, time.Hour, 0, time.Hour, time.Hour, 9 * time.Hour, time.Hour} {
		c.add(ttl)
	}
	want(t, "noted", len(c.items("expiry#")), 1)
	sweep := func(max int) string {
		t.Helper()
		n, more, err := c.Expire(t.Context(), max)
		must(t, err)
		return fmt.Sprint(n, " ", more)
	}
	want(t, "too early", sweep(0), "0 false")
	c.now = c.now.Add(3 * time.Hour)
	c.expire(1, 2, 4, 7)
	want(t, "in steps", []string{sweep(2), sweep(2)}, []string{"3 true", "2 true"})
	want(t, "the rest", sweep(2), "0 false")
	want(t, "then", c.counts(), "2 waiting, 2 batches' bytes")
	want(t, "batches", len(c.items("b#")), 2)
	items := c.items("expiry#")
	want(t, "noted", len(items), 1)
	if hour := strings.Split(items[0]["sk"].(*types.AttributeValueMemberS).Value, "#")[0]; hour <= fmt.Sprintf("%010d", c.now.UnixMilli()/3_600_000) {
		t.Fatalf("noted under hour %s, which is over", hour)
	}
	c.now = c.now.Add(9 * time.Hour)
	c.expire(6)
	want(t, "the last", []string{sweep(0), sweep(0)}, []string{"1 false", "0 false"})
	want(t, "noted", len(c.items("expiry#")), 0)
	want(t, "then", c.counts(), "1 waiting, 1 batches' bytes")
	want(t, "read", c.read(), []uint64{3})
}

// TestAllVanished has a whole backlog go by itself.
func TestAllVanished(t *testing.T) {
	c := newClocked(t)
	for range 3 {
		c.add(time.Hour)
	}
	c.now = c.now.Add(3 * time.Hour)
	c.expire(1, 2, 3)
	n, _, err := c.Expire(t.Context(), 0)
	must(t, err)
	want(t, "expired", n, 3)
	want(t, "then", c.counts(), "0 waiting, 0 batches' bytes")
	c.add(time.Hour)
	want(t, "one more", c.counts(), "1 waiting, 1 batches' bytes")
	want(t, "read", c.read(), []uint64{4})
}

// TestRemovalLost has a process end after it wrote a state and before it removed what that is done with.
func TestRemovalLost(t *testing.T) {
	s, w, o := wired(t)
	for range 5 {
		must(t, appendOne(s))
	}
	w.set(noRemoval, nil)
	must(t, update(s, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Cursor = 4 }))
	w.set(nil, nil)
	x := behind(t, o)
	want(t, "batches that lie about", len(x.items("b#")), 5)
	other := open(t, o)
	p, err := other.Partition(t.Context(), key)
	must(t, err)
	want(t, "head and bytes", []any{p.Head, p.Bytes}, []any{4, 20})
	must(t, update(other, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Cursor = 5 }))
	wantState(t, s, "end 6 head 5 bytes 10 [5]")
	want(t, "batches", len(x.items("b#")), 1)
}

// TestLarge writes what is largest of everything.
func TestLarge(t *testing.T) {
	o := options(t)
	s, other := open(t, o), open(t, o)
	letters := func(w *eventstore.Writes) {
		for n := range uint64(eventstore.MaxChangeDead) {
			w.Dead = append(w.Dead, eventstore.DeadLetter{Position: n + 1, Reason: strings.Repeat("r", 500), Record: make([]byte, 20<<10)})
		}
	}
	must(t, update(s, func(p *eventstore.Partition, w *eventstore.Writes) {
		for n := range uint64(512) {
			p.Done = append(p.Done, eventstore.Span{From: 5 + 4*n, To: 6 + 4*n})
			p.Runs = append(p.Runs, eventstore.Run{From: 7 + 4*n, To: 7 + 4*n, Attempt: 65535, Failed: 65535, Next: math.MaxInt64})
		}
		for n := range uint64(64) {
			p.Writers = append(p.Writers, eventstore.Writer{ID: math.MaxUint64 - n<<40, Counter: math.MaxInt64 - n, Position: 1 << 60})
		}
		for range 4 {
			add(p, w, eventstore.MaxBatchBody, 1<<42)
		}
		letters(w)
	}))
	must(t, update(other, func(p *eventstore.Partition, w *eventstore.Writes) {
		for n := range uint64(eventstore.MaxChangeDead) {
			w.DropDead = append(w.DropDead, n+1, n+1)
		}
		for range 5 {
			add(p, w, 256<<10, 0)
		}
	}))
	p, err := s.Partition(t.Context(), key)
	must(t, err)
	want(t, "the state", []any{p.End, len(p.Runs), len(p.Done), len(p.Writers), p.Bytes}, []any{10, 512, 512, 64, 4*eventstore.MaxBatchBody + 5<<18})
	dead, err := s.DeadLetters(t.Context(), key, 0, 1000)
	must(t, err)
	want(t, "dead letters", len(dead), 0)
	for _, i := range behind(t, o).items("p#") {
		if z, _ := i["z"].(*types.AttributeValueMemberB); z == nil || len(z.Value) > 20<<10 {
			t.Fatal("the state is not packed, or to more than 20 KB")
		}
	}
}

// TestDropMany drops more batches than a transaction takes, between others.
func TestDropMany(t *testing.T) {
	s := open(t, options(t))
	const many = 260
	var drop []uint64
	for n := 0; n < many; n += 20 {
		must(t, update(s, func(p *eventstore.Partition, w *eventstore.Writes) {
			for range 20 {
				add(p, w, 1, 0)
			}
		}))
	}
	for n := uint64(2); n < many; n++ {
		drop = append(drop, n)
	}
	must(t, update(s, func(_ *eventstore.Partition, w *eventstore.Writes) { w.Drop = drop }))
	wantState(t, s, fmt.Sprintf("end %d head 1 bytes 2 [1 %d]", many+1, many))
}

// TestSweepWhileTrimming has a sweep come by while the first of many batches that are done are removed.
func TestSweepWhileTrimming(t *testing.T) {
	o := options(t)
	s, x := open(t, o), behind(t, o)
	const many, hour = 260, 3_600_000
	now := time.Now().Add(48 * time.Hour).UnixMilli()
	for n := 0; n < many; n += 20 {
		must(t, update(s, func(p *eventstore.Partition, w *eventstore.Writes) {
			for range 20 {
				add(p, w, 1, now+int64(n)*hour)
			}
		}))
	}
	must(t, update(s, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Cursor = 251 }))
	p, err := s.Partition(t.Context(), key)
	must(t, err)
	want(t, "head and bytes", []any{p.Head, p.Bytes}, []any{201, 60})
	found, err := s.Expired(t.Context(), now+2*hour, 100)
	must(t, err)
	want(t, "expired", len(found), 0)
	must(t, update(s, func(p *eventstore.Partition, _ *eventstore.Writes) { p.Seen++ }))
	want(t, "state", state(t, s), "end 261 head 251 bytes 10 [251 252 253 254 255 256 257 258 259 260]")
	want(t, "batches", len(x.items("b#")), 10)
}

func TestNames(t *testing.T) {
	s := open(t, options(t))
	ids := []iot.TenantID{"a#b", "a%23b", iot.TenantID(strings.Repeat("#", 1024)), iot.TenantID(strings.Repeat("t", 1024))}
	change := func(id iot.TenantID, holder string) error {
		errs := s.Update(t.Context(), []eventstore.Change{{Key: eventstore.Key{Tenant: id}, Apply: func(p *eventstore.Partition, w *eventstore.Writes) error {
			p.Holder = holder
			add(p, w, 1, 1<<42)
			return nil
		}}})
		if errs != nil {
			return errs[0]
		}
		return nil
	}
	for n, id := range ids {
		must(t, change(id, fmt.Sprint(n)))
	}
	for n, id := range ids {
		stored, err := s.PartitionsOf(t.Context(), id)
		must(t, err)
		if len(stored) != 1 || stored[0].State.Holder != fmt.Sprint(n) || stored[0].State.End != 2 {
			t.Fatalf("%.20s: %+v", id, stored)
		}
	}
	list, err := s.Tenants(t.Context(), "", 10)
	must(t, err)
	want(t, "tenants", len(list), len(ids))
	list, err = s.Tenants(t.Context(), iot.TenantID(strings.Repeat("b", 3000)), 10)
	must(t, err)
	want(t, "tenants after a long name", len(list), 1)
	for _, id := range []iot.TenantID{"", "\xff", iot.TenantID(strings.Repeat("t", 1025))} {
		if err := change(id, "x"); iotError(err) != iot.ErrInvalid {
			t.Fatalf("got %v, want iot.ErrInvalid", err)
		}
		p, err := s.Partition(t.Context(), eventstore.Key{Tenant: id})
		must(t, err)
		want(t, "a partition that cannot be", p, eventstore.NewPartition())
	}
}

// TestLetterNotRemovedYet has a query see dead letters that a transaction under way removes.
func TestLetterNotRemovedYet(t *testing.T) {
	s, w, o := wired(t)
	must(t, update(s, func(p *eventstore.Partition, w *eventstore.Writes) {
		for n := range uint64(3) {
			w.Dead = append(w.Dead, eventstore.DeadLetter{Position: n + 1, Record: []byte("r")})
		}
	}))
	other := open(t, o)
	for _, step := range []string{"under way", "done meanwhile"} {
		fault := false
		w.set(func(operation string) (*http.Response, error) {
			if operation != "TransactGetItems" || fault {
				return nil, nil
			}
			fault = true
			if step == "under way" {
				return canceled("TransactionConflict"), nil
			}
			return nil, update(other, func(_ *eventstore.Partition, w *eventstore.Writes) { w.DropDead = []uint64{2} })
		}, nil)
		found, err := s.DeadLetters(t.Context(), key, 0, 100)
		if must(t, err); !fault {
			t.Fatal("nobody asked whether the letters stay")
		}
		w.set(nil, nil)
		left, err := other.DeadLetters(t.Context(), key, 0, 100)
		must(t, err)
		want(t, step, fmt.Sprint(found), fmt.Sprint(left))
	}
}
