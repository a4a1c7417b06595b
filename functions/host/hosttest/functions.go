package hosttest

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

// What the tenant function is asked to do by the id of the tenant; with any other
// id it tells of an enabled tenant by that id.
const (
	failBy   = "fail-" // and the index of a sentinel
	unknown  = "unknown-error"
	panics   = "panic"
	waits    = "wait"   // for the end of its context
	tellsBy  = "budget" // how much time it has, in milliseconds, as minimum-message-size
	longs    = "long"   // LongReply bytes
	internal = "a secret of the function"
)

// LongReply is how many bytes the longest reply of the suite has at least.
const LongReply = 600_000

// retryAfter is so long that no invoker waits for it.
const retryAfter = time.Hour

// expires is when the suite's assertions end.
var expires = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// Functions are those that the suites call.
func Functions() []events.Function {
	return append(storing(),
		events.NewFunction(tenant), events.NewFunction(credentials), events.NewFunction(registration),
		events.NewFunction(admit), events.NewFunction(keys),
	)
}

func tenant(ctx context.Context, req events.TenantGet) (*events.TenantGot, error) {
	got := &events.TenantGot{TenantObject: events.TenantObject{ID: req.ID, Enabled: true}, CacheFor: 3 * time.Minute}
	if n, ok := strings.CutPrefix(string(req.ID), failBy); ok {
		i, err := strconv.Atoi(n)
		if err != nil {
			return nil, err
		}
		return nil, &iot.Error{Sentinel: iot.Sentinels[i], Text: "told " + n, RetryAfter: retryAfter}
	}
	switch req.ID {
	case unknown:
		return nil, errors.New(internal)
	case panics:
		panic(internal)
	case waits:
		<-ctx.Done()
		return nil, ctx.Err()
	case tellsBy:
		deadline, _ := ctx.Deadline()
		got.MinimumMessageSize = int(time.Until(deadline).Milliseconds())
	case longs:
		got.Ext = map[string]any{"text": strings.Repeat("ü<\"", LongReply/3)}
	}
	return got, nil
}

func credentials(_ context.Context, req events.CredentialsGet) (*events.CredentialsGot, error) {
	return &events.CredentialsGot{
		DeviceID: iot.DeviceID(req.TenantID), Provisioned: req.AuthID == "new", CacheFor: time.Minute,
		Credential: iot.Credential{Type: req.Type, AuthID: req.AuthID, Secrets: []iot.Secret{{ID: "s1", Key: []byte{0, 1, 255}}}},
	}, nil
}

func registration(_ context.Context, req events.RegistrationAssert) (*events.RegistrationAsserted, error) {
	return &events.RegistrationAsserted{
		Registration: events.Registration{DeviceID: req.DeviceID, Via: []iot.DeviceID{req.GatewayID, iot.DeviceID(req.TenantID)}},
		Assertion:    "a.b.c", AssertionExpires: expires, CacheFor: 5 * time.Hour,
	}, nil
}

func admit(_ context.Context, req events.Admit) (*events.Admitted, error) {
	if req.Credential == nil {
		return nil, iot.Errorf(iot.ErrInvalid, "no credential")
	}
	return &events.Admitted{
		TenantObject: events.TenantObject{ID: req.TenantRef.ID, Enabled: true},
		DeviceID:     iot.DeviceID(req.Credential.AuthID), Registration: events.Registration{DeviceID: iot.DeviceID(req.Credential.AuthID)},
		Assertion: req.Credential.Password, AssertionExpires: expires, SecretID: strconv.Itoa(len(req.Credential.Certificate)), PSK: []byte{1, 2, 3},
		CacheFor: 23 * time.Hour,
	}, nil
}

func keys(context.Context, events.AssertionKeys) (*events.KeySet, error) {
	return &events.KeySet{Keys: []json.RawMessage{[]byte(`{"kid":"k"}`)}, CacheFor: 24 * time.Hour}, nil
}
