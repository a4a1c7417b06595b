package hosttest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/internal/status"
)

// Limits are what differs between hosts.
type Limits struct {
	// Request is the longest request in bytes that is taken; 0 = the suite tries none.
	Request int
}

// Run tests what start returns: a way to [Functions] for a caller that may ask
// what adapters and routers may.
func Run(t *testing.T, l Limits, start func(t *testing.T) events.Invoker) {
	inv := start(t)
	t.Run("replies", func(t *testing.T) { replies(t, inv) })
	t.Run("identifiers", func(t *testing.T) { identifiers(t, inv) })
	t.Run("errors", func(t *testing.T) { sentinels(t, inv) })
	t.Run("internals", func(t *testing.T) { internals(t, inv) })
	t.Run("unknown type", func(t *testing.T) { unknownType(t, inv) })
	t.Run("deadlines", func(t *testing.T) { deadlines(t, inv) })
	t.Run("long reply", func(t *testing.T) { longReply(t, inv) })
	t.Run("too large", func(t *testing.T) { tooLarge(t, inv, l.Request) })
	t.Run("at once", func(t *testing.T) { atOnce(t, inv) })
}

// same calls and compares the reply.
func same[R events.Reply](t *testing.T, inv events.Invoker, req events.RequestOf[R], want R) {
	t.Helper()
	got, err := events.Call(t.Context(), inv, req)
	if err != nil {
		t.Errorf("%s: %v", req.EventType(), err)
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", req.EventType(), diff)
	}
}

func replies(t *testing.T, inv events.Invoker) {
	ctx := t.Context()
	got, err := tenant(ctx, events.TenantGet{ID: "T"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, inv, events.TenantGet{ID: "T"}, got)
	for _, authID := range []string{"known", "new"} { // 200 and 201
		req := events.CredentialsGet{TenantID: "T", Type: "psk", AuthID: authID, Context: map[string]any{"a": 1.0}}
		want, _ := credentials(ctx, req)
		same(t, inv, req, want)
	}
	asked := events.RegistrationAssert{TenantID: "T", DeviceID: "D", GatewayID: "G"}
	asserted, _ := registration(ctx, asked)
	same(t, inv, asked, asserted)
	door := events.Admit{Adapter: "hono-http", TenantRef: events.TenantRef{ID: "T"}, DeviceID: "D",
		Credential: &events.Credential{Type: "hashed-password", AuthID: "a", Password: "p", Certificate: []byte{1, 2}}}
	admitted, _ := admit(ctx, door)
	same(t, inv, door, admitted)
	set, _ := keys(ctx, events.AssertionKeys{})
	same(t, inv, events.AssertionKeys{}, set)
}

// identifiers are attributes of the CloudEvent, and encoded differently from data.
func identifiers(t *testing.T, inv events.Invoker) {
	for _, id := range []string{"plain", "with space", "per%cent", `quo"te`, "ünï", "%C3%BC", "電"} {
		req := events.RegistrationAssert{TenantID: iot.TenantID(id), DeviceID: iot.DeviceID(id)}
		want, _ := registration(t.Context(), req)
		same(t, inv, req, want)
	}
	_, err := inv.Invoke(t.Context(), events.RegistrationAssert{TenantID: "a\nb", DeviceID: "D"})
	if !errors.Is(err, iot.ErrInvalid) {
		t.Errorf("a control character: %v, want ErrInvalid", err)
	}
}

func sentinels(t *testing.T, inv events.Invoker) {
	for i, sentinel := range iot.Sentinels {
		_, err := inv.Invoke(t.Context(), events.TenantGet{ID: iot.TenantID(fmt.Sprint(failBy, i))})
		want := sentinel
		if sentinel == iot.ErrNoCredit {
			want = iot.ErrUnavailable
		}
		row := status.Of(sentinel)
		after := time.Duration(0)
		if row.Status == 429 || row.Status == 503 {
			after = retryAfter
		}
		if !errors.Is(err, want) || err.Error() != fmt.Sprint("told ", i) || iot.RetryAfter(err) != after {
			t.Errorf("%v: got %v (%v), retry after %s; want %v after %s", sentinel, err, status.Sentinel(err), iot.RetryAfter(err), want, after)
		}
	}
}

// internals stay inside, and what failed goes on.
func internals(t *testing.T, inv events.Invoker) {
	for _, id := range []iot.TenantID{unknown, panics} {
		_, err := inv.Invoke(t.Context(), events.TenantGet{ID: id})
		if !errors.Is(err, status.ErrInternal) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want ErrInternal and no more", id, err)
		}
		if _, err := inv.Invoke(t.Context(), events.TenantGet{ID: "T"}); err != nil {
			t.Errorf("after %s: %v", id, err)
		}
	}
}

// stranger is a request of a type that nobody serves.
type stranger struct{}

func (stranger) EventType() string    { return "io.sluice.hosttest.stranger" }
func (stranger) Tenant() iot.TenantID { return "" }

func unknownType(t *testing.T, inv events.Invoker) {
	if _, err := inv.Invoke(t.Context(), stranger{}); !errors.Is(err, status.ErrUnknownType) {
		t.Errorf("got %v, want ErrUnknownType", err)
	}
}

func deadlines(t *testing.T, inv events.Invoker) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := inv.Invoke(ctx, events.TenantGet{ID: waits}); !errors.Is(err, iot.ErrTimeout) {
		t.Errorf("got %v, want ErrTimeout", err)
	}
	<-ctx.Done()
	if _, err := inv.Invoke(ctx, events.TenantGet{ID: "T"}); !errors.Is(err, iot.ErrTimeout) {
		t.Errorf("with no time left: %v, want ErrTimeout", err)
	}
	long, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := events.Call(long, inv, events.TenantGet{ID: tellsBy})
	if err != nil {
		t.Fatal(err)
	}
	if left := got.MinimumMessageSize; left <= 0 || left > 20_000 {
		t.Errorf("the function has %d ms, the caller 20,000", left)
	}
}

func longReply(t *testing.T, inv events.Invoker) {
	want, _ := tenant(t.Context(), events.TenantGet{ID: longs})
	same(t, inv, events.TenantGet{ID: longs}, want)
}

func tooLarge(t *testing.T, inv events.Invoker, limit int) {
	if limit == 0 {
		t.Skip("this way has no limit")
	}
	req := events.Admit{Adapter: "a", TenantRef: events.TenantRef{ID: "T"}, Credential: &events.Credential{Type: "x509-cert", AuthID: "a", Certificate: make([]byte, limit)}}
	if _, err := inv.Invoke(t.Context(), req); !errors.Is(err, iot.ErrTooLarge) || !strings.Contains(err.Error(), fmt.Sprint(limit)) {
		t.Errorf("got %v, want ErrTooLarge that names the limit of %d", err, limit)
	}
	req.Credential.Certificate = make([]byte, limit/2)
	got, err := events.Call(t.Context(), inv, req)
	if err != nil || got.SecretID != fmt.Sprint(limit/2) {
		t.Errorf("half of it: %v", err)
	}
}

// atOnce calls from many goroutines; each gets its own answer.
func atOnce(t *testing.T, inv events.Invoker) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 8 {
				id := iot.TenantID(fmt.Sprintf("t-%d-%d", i, j))
				got, err := events.Call(t.Context(), inv, events.TenantGet{ID: id})
				if err != nil || got.ID != id {
					t.Errorf("%s: got %+v, %v", id, got, err)
				}
			}
		})
	}
	wg.Wait()
}

// Routed calls as the component that may: admissions as an adapter, what operators ask as
// a function, the rest as a router.
type Routed struct{ Adapter, Router, Function events.Invoker }

// Invoke implements [events.Invoker].
func (r Routed) Invoke(ctx context.Context, req events.Request) (events.Reply, error) {
	switch req.EventType() {
	case events.TypeAdmit:
		return r.Adapter.Invoke(ctx, req)
	case events.TypeEventExpire, events.TypeEventBrowse, events.TypeEventRequeue, events.TypeEventPurge:
		return r.Function.Invoke(ctx, req)
	}
	return r.Router.Invoke(ctx, req)
}
