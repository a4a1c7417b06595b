package main_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/functions/host/hosttest"
	eventstore "github.com/sluice-iot/sluice/internal/eventstore/dynamostore"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/registry/dynamostore"
	"github.com/sluice-iot/sluice/internal/registry/dynamotest"
	"github.com/sluice-iot/sluice/internal/registry/pgtest"
)

// kek is a key-encryption key that every process of a test has.
const kek = "SLUICE_KEK=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

// shared runs two processes on Lambda over one store and returns an invoker of the
// second: what the first wrote it reads, and signs with the same key.
func shared(t *testing.T, vars ...string) events.Invoker {
	t.Helper()
	identities, password := operator(t, t.TempDir())
	env := environment(append(vars, kek, "HOME=", "SLUICE_IDENTITIES="+identities)...) // Lambda names no home
	writers, readers := hosttest.NewRuntime(t), hosttest.NewRuntime(t)
	for _, r := range []*hosttest.Runtime{writers, readers} {
		startOn(t, r, env)
	}
	register(t, byURL(writers, password))
	inv := invoker(t, readers)
	admits(t, inv)
	kids := map[string]bool{}
	for _, inv := range []events.Invoker{inv, invoker(t, writers)} {
		set, err := events.Call(t.Context(), inv, events.AssertionKeys{})
		if err != nil || len(set.Keys) != 1 {
			t.Fatalf("%v, %v", set, err)
		}
		kids[string(set.Keys[0])] = true
	}
	if len(kids) != 1 {
		t.Errorf("each signs with a key of its own: %v", kids)
	}
	return inv
}

func TestOnPostgres(t *testing.T) {
	db := pgtest.Start(t)
	inv := shared(t, "SLUICE_REGISTRY_STORE=postgres", "SLUICE_REGISTRY_URL="+db.URL)
	db.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := inv.Invoke(ctx, events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrUnavailable) && !errors.Is(err, iot.ErrTimeout) {
		t.Errorf("with the store down: %v", err)
	}
	db.Restart(t)
	admits(t, inv)
}

func TestOnDynamoDB(t *testing.T) {
	endpoint := dynamotest.Endpoint(t)
	const table = "sluice-function"
	t.Setenv("AWS_ACCESS_KEY_ID", dynamotest.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", dynamotest.SecretKey)
	s, err := dynamostore.Open(t.Context(), dynamostore.Options{Table: table, Endpoint: endpoint, Region: dynamotest.Region, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	e, err := eventstore.Open(t.Context(), eventstore.Options{Table: table + "-events", Endpoint: endpoint, Region: dynamotest.Region, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	shared(t, "SLUICE_REGISTRY_STORE=dynamodb", "SLUICE_REGISTRY_TABLE="+table, "SLUICE_REGISTRY_ENDPOINT="+endpoint,
		"AWS_REGION="+dynamotest.Region, "AWS_ACCESS_KEY_ID="+dynamotest.AccessKey, "AWS_SECRET_ACCESS_KEY="+dynamotest.SecretKey)
}
