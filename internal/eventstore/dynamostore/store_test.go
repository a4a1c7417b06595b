package dynamostore_test

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/sluice-iot/sluice/internal/eventstore"
	"github.com/sluice-iot/sluice/internal/eventstore/dynamostore"
	"github.com/sluice-iot/sluice/internal/eventstore/storetest"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry/dynamotest"
)

func TestMain(m *testing.M) { os.Exit(dynamotest.Run(m)) }

func options(t testing.TB) dynamostore.Options {
	return dynamostore.Options{Table: "t-" + rand.Text(), Endpoint: dynamotest.Endpoint(t), Region: dynamotest.Region, Create: true,
		Credentials: credentials.NewStaticCredentialsProvider(dynamotest.AccessKey, dynamotest.SecretKey, "")}
}

func open(t testing.TB, o dynamostore.Options) *dynamostore.Store {
	t.Helper()
	s, err := dynamostore.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) eventstore.Store { return open(t, options(t)) })
}

// TestManyProcesses runs the suite over several stores on one table, which
// share no lock and no memory.
func TestManyProcesses(t *testing.T) {
	storetest.Run(t, func(t *testing.T) eventstore.Store {
		o := options(t)
		several := &spread{}
		for range 3 {
			several.all = append(several.all, open(t, o))
		}
		return several
	})
}

// spread hands each call to the next of several stores.
type spread struct {
	all  []*dynamostore.Store
	turn atomic.Int64
}

func (s *spread) next() *dynamostore.Store { return s.all[int(s.turn.Add(1))%len(s.all)] }

func (s *spread) Update(ctx context.Context, changes []eventstore.Change) []error {
	return s.next().Update(ctx, changes)
}

func (s *spread) Partition(ctx context.Context, k eventstore.Key) (eventstore.Partition, error) {
	return s.next().Partition(ctx, k)
}

func (s *spread) PartitionsOf(ctx context.Context, t iot.TenantID) ([]eventstore.Stored, error) {
	return s.next().PartitionsOf(ctx, t)
}

func (s *spread) Tenants(ctx context.Context, after iot.TenantID, max int) ([]iot.TenantID, error) {
	return s.next().Tenants(ctx, after, max)
}

func (s *spread) Batches(ctx context.Context, k eventstore.Key, from uint64, maxBytes int) ([]eventstore.Batch, error) {
	return s.next().Batches(ctx, k, from, maxBytes)
}

func (s *spread) Expired(ctx context.Context, until int64, max int) ([]eventstore.ExpiredBatch, error) {
	return s.next().Expired(ctx, until, max)
}

func (s *spread) DeadLetters(ctx context.Context, k eventstore.Key, from uint64, max int) ([]eventstore.DeadLetter, error) {
	return s.next().DeadLetters(ctx, k, from, max)
}

func TestOpenErrors(t *testing.T) {
	o := options(t)
	o.Create = false
	for _, c := range []struct {
		name   string
		change func(*dynamostore.Options)
		want   []string
	}{
		{"no such table", func(*dynamostore.Options) {}, []string{o.Table, "does not exist", "create it", "pk", "sk", "ttl"}},
		{"no table", func(o *dynamostore.Options) { o.Table = "" }, []string{"no table is named"}},
		{"no region", func(o *dynamostore.Options) { o.Region = "" }, []string{"AWS_REGION"}},
		{"no credentials", func(o *dynamostore.Options) { o.Credentials = nil }, []string{"AWS_ACCESS_KEY_ID"}},
		{"nobody there", func(o *dynamostore.Options) { o.Endpoint = "http://127.0.0.1:1" }, []string{o.Table, "refused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
				"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
				t.Setenv(name, "")
			}
			o := o
			c.change(&o)
			_, err := dynamostore.Open(t.Context(), o)
			if err == nil || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want one line", err)
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Fatalf("%q does not say %q", err, part)
				}
			}
		})
	}
}

func TestOpenTogether(t *testing.T) {
	o := options(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			s, err := dynamostore.Open(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	all.Wait()
	s := open(t, o)
	must(t, s.Close(), s.Close())
	if _, err := s.Partition(t.Context(), key); !errors.Is(err, iot.ErrUnavailable) {
		t.Fatalf("a closed store answers %v, want iot.ErrUnavailable", err)
	}
}

var key = eventstore.Key{Tenant: "T", Partition: eventstore.PartitionOf("D")}
