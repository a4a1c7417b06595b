package adapters_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

var (
	home    = netip.MustParseAddr("192.0.2.1")
	far     = netip.MustParseAddr("192.0.2.2")
	network = netip.MustParseAddr("2001:db8:1:2::1")
	sameNet = netip.MustParseAddr("2001:db8:1:2:ffff::9")
)

func request(authID, password string, from netip.Addr) *adapters.Request {
	return &adapters.Request{Remote: from, Admit: events.Admit{
		Adapter:    "hono-http",
		TenantRef:  events.TenantRef{ID: adaptertest.Tenant},
		Credential: &events.Credential{Type: iot.HashedPassword, AuthID: authID, Password: password},
	}}
}

func good() *adapters.Request {
	return request(string(adaptertest.Device), adaptertest.Password, home)
}

func newAdmissions(t testing.TB, o adapters.AdmissionOptions) (*adapters.Admissions, *adaptertest.Invoker) {
	inv := &adaptertest.Invoker{}
	if o.Invoker == nil {
		o.Invoker = inv
	}
	a := adapters.NewAdmissions(o)
	t.Cleanup(a.Close)
	return a, inv
}

func TestAdmissionIsCachedForMaxAgeAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, inv := newAdmissions(t, adapters.AdmissionOptions{MaxAge: time.Second})
		for i, wait := range []time.Duration{0, 999 * time.Millisecond, time.Millisecond} {
			time.Sleep(wait)
			if _, err := a.Admit(t.Context(), good()); err != nil {
				t.Fatal(err)
			}
			want := 1
			if i == 2 {
				want = 2
			}
			if got := len(inv.Calls()); got != want {
				t.Errorf("step %d: got %d calls, want %d", i, got, want)
			}
		}
	})
}

func TestShorterReplyAgeAndAssertionEndWin(t *testing.T) {
	for _, tt := range []struct {
		name          string
		age, validFor time.Duration
		want          int // calls after asking twice at the same moment
	}{
		{"reply is not to be kept", 0, time.Hour, 2},
		{"assertion has expired", time.Hour, -time.Second, 2},
		{"both allow it", time.Hour, time.Hour, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			a, _ := newAdmissions(t, adapters.AdmissionOptions{MaxAge: time.Hour, Invoker: invokerFunc(func(context.Context, events.Request) (events.Reply, error) {
				calls++
				return &events.Admitted{
					TenantObject: events.TenantObject{ID: "t"}, DeviceID: "d",
					CacheFor: tt.age, AssertionExpires: time.Now().Add(tt.validFor),
				}, nil
			})})
			for range 2 {
				if _, err := a.Admit(t.Context(), good()); err != nil {
					t.Fatal(err)
				}
			}
			if calls != tt.want {
				t.Errorf("got %d calls, want %d", calls, tt.want)
			}
		})
	}
}

type invokerFunc func(context.Context, events.Request) (events.Reply, error)

func (f invokerFunc) Invoke(ctx context.Context, r events.Request) (events.Reply, error) {
	return f(ctx, r)
}

func TestEachMemberOfTheRequestIsPartOfTheKey(t *testing.T) {
	calls := 0
	a, _ := newAdmissions(t, adapters.AdmissionOptions{MaxAge: time.Hour, Invoker: invokerFunc(func(context.Context, events.Request) (events.Reply, error) {
		calls++
		return &events.Admitted{TenantObject: events.TenantObject{ID: "t"}, DeviceID: "d", CacheFor: time.Hour}, nil
	})})
	changes := []func(*adapters.Request){
		func(r *adapters.Request) {},
		func(r *adapters.Request) { r.Admit.Adapter = "hono-mqtt" },
		func(r *adapters.Request) { r.Admit.TenantRef = events.TenantRef{ID: "other"} },
		func(r *adapters.Request) { r.Admit.TenantRef = events.TenantRef{SNI: "other"} },
		func(r *adapters.Request) { r.Admit.TenantRef = events.TenantRef{SubjectDN: "other"} },
		func(r *adapters.Request) { r.Admit.DeviceID = "other" },
		func(r *adapters.Request) { r.Admit.Context = map[string]any{"client-id": "a"} },
		func(r *adapters.Request) { r.Admit.Context = map[string]any{"client-id": "b"} },
		func(r *adapters.Request) { r.Admit.Credential.Type = iot.PSK },
		func(r *adapters.Request) { r.Admit.Credential.AuthID += "x" },
		func(r *adapters.Request) { r.Admit.Credential.Password += "x" },
		func(r *adapters.Request) { r.Admit.Credential.JWT = "x" },
		func(r *adapters.Request) { r.Admit.Credential.SecretID = "x" },
		func(r *adapters.Request) { r.Admit.Credential.Certificate = []byte("x") },
		func(r *adapters.Request) { r.Admit.Credential = nil },
		func(r *adapters.Request) { // the border between two members moves
			r.Admit.Credential.AuthID += r.Admit.Credential.Password[:1]
			r.Admit.Credential.Password = r.Admit.Credential.Password[1:]
		},
	}
	for range 2 {
		for _, change := range changes {
			r := good()
			change(r)
			if _, err := a.Admit(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	if calls != len(changes) {
		t.Errorf("got %d calls, want %d", calls, len(changes))
	}
}

func TestConcurrentMissesAskOnceAndSurviveTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, inv := newAdmissions(t, adapters.AdmissionOptions{})
		release := inv.Block()
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := a.Admit(first, good()); !errors.Is(err, context.Canceled) {
				t.Errorf("first: got %v, want its own cancellation", err)
			}
		})
		synctest.Wait()
		for range 50 {
			wg.Go(func() {
				if _, err := a.Admit(t.Context(), good()); err != nil {
					t.Errorf("follower: %v", err)
				}
			})
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		release()
		wg.Wait()
		if got := len(inv.Calls()); got != 1 {
			t.Errorf("got %d calls, want 1", got)
		}
	})
}

func TestInvocationHasADeadlineOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, inv := newAdmissions(t, adapters.AdmissionOptions{})
		release := inv.Block()
		defer release()
		start := time.Now()
		_, err := a.Admit(t.Context(), good())
		if !errors.Is(err, iot.ErrUnavailable) || time.Since(start) != adapters.DefaultAdmissionTimeout {
			t.Errorf("got %v after %v, want ErrUnavailable after %v", err, time.Since(start), adapters.DefaultAdmissionTimeout)
		}
	})
}

func TestErrorsAreNotCached(t *testing.T) {
	a, inv := newAdmissions(t, adapters.AdmissionOptions{MaxAge: time.Hour})
	inv.Fail(iot.Errorf(iot.ErrUnavailable, "down"))
	for range 3 {
		if _, err := a.Admit(t.Context(), good()); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
	}
	inv.Fail(nil)
	if _, err := a.Admit(t.Context(), good()); err != nil {
		t.Error(err)
	}
	if got := len(inv.Calls()); got != 4 {
		t.Errorf("got %d calls, want 4", got)
	}
}

func TestBadRepliesAndPanicsAreErrors(t *testing.T) {
	for name, f := range map[string]invokerFunc{
		"nil": func(context.Context, events.Request) (events.Reply, error) { return (*events.Admitted)(nil), nil },
		"no tenant": func(context.Context, events.Request) (events.Reply, error) {
			return &events.Admitted{DeviceID: "d"}, nil
		},
		"no device": func(context.Context, events.Request) (events.Reply, error) {
			return &events.Admitted{TenantObject: events.TenantObject{ID: "t"}}, nil
		},
		"panic": func(context.Context, events.Request) (events.Reply, error) { panic("oops") },
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := newAdmissions(t, adapters.AdmissionOptions{Invoker: f})
			if _, err := a.Admit(t.Context(), good()); err == nil {
				t.Error("got no error")
			}
		})
	}
}

func TestCacheIsBoundedAndSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 256
		a, _ := newAdmissions(t, adapters.AdmissionOptions{MaxEntries: most, MaxAge: 10 * time.Second})
		for i := range 4 * most {
			r := good()
			r.Admit.Context = map[string]any{"client-id": i}
			if _, err := a.Admit(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if got := a.Cached(); got == 0 || got > most {
			t.Errorf("got %d entries, want 1 to %d", got, most)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got, found := a.Cached(), a.Indexed(); got+found != 0 {
			t.Errorf("got %d entries, %d of them indexed, after all expired, want none", got, found)
		}
	})
}

func TestClosedAdmissionsRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inv := &adaptertest.Invoker{}
		a := adapters.NewAdmissions(adapters.AdmissionOptions{Invoker: inv})
		release := inv.Block()
		defer release()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := a.Admit(t.Context(), good()); !errors.Is(err, iot.ErrUnavailable) {
				t.Errorf("under way: got %v, want ErrUnavailable", err)
			}
		})
		synctest.Wait()
		a.Close()
		wg.Wait()
		if _, err := a.Admit(t.Context(), good()); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("after: got %v, want ErrUnavailable", err)
		}
	})
}

func TestFailedAttemptsPerAuthID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, inv := newAdmissions(t, adapters.AdmissionOptions{})
		guess := func(i int) error {
			_, err := a.Admit(t.Context(), request(string(adaptertest.Device), fmt.Sprint("guess", i), far))
			return err
		}
		for i := range 10 {
			if err := guess(i); !errors.Is(err, iot.ErrUnauthenticated) {
				t.Fatalf("guess %d: got %v, want ErrUnauthenticated", i, err)
			}
			time.Sleep(time.Second)
		}
		err := guess(10)
		if !errors.Is(err, iot.ErrQuota) || iot.RetryAfter(err) != 50*time.Second {
			t.Errorf("guess 10: got %v, retry after %v; want ErrQuota, 50s", err, iot.RetryAfter(err))
		}
		if got := len(inv.Calls()); got != 10 {
			t.Errorf("got %d invocations, want 10", got)
		}
		if _, err := a.Admit(t.Context(), request(string(adaptertest.OtherDevice), adaptertest.Password, far)); err != nil {
			t.Errorf("another auth-id: %v", err)
		}
		time.Sleep(50 * time.Second)
		if err := guess(11); !errors.Is(err, iot.ErrUnauthenticated) {
			t.Errorf("a minute later: got %v, want ErrUnauthenticated", err)
		}
	})
}

func TestBurstOfGuessesDoesNotPassTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, inv := newAdmissions(t, adapters.AdmissionOptions{})
		release := inv.Block()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if _, err := a.Admit(t.Context(), request(string(adaptertest.Device), fmt.Sprint("guess", i), far)); err == nil {
					t.Error("a guess came in")
				}
			})
		}
		synctest.Wait()
		release()
		wg.Wait()
		if got := len(inv.Calls()); got != 10 {
			t.Errorf("got %d invocations, want 10", got)
		}
	})
}

func TestBurstOfGoodRequestsWaitsAndPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, inv := newAdmissions(t, adapters.AdmissionOptions{})
		release := inv.Block()
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				r := good()
				r.Admit.Context = map[string]any{"client-id": i} // not equal, so not collapsed
				if _, err := a.Admit(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		release()
		wg.Wait()
		if got := len(inv.Calls()); got != 100 {
			t.Errorf("got %d invocations, want 100", got)
		}
		if got := a.Watched(); got != 0 {
			t.Errorf("%d auth-ids and addresses are watched, want none", got)
		}
	})
}

func TestFailedAttemptsPerAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAdmissions(t, adapters.AdmissionOptions{FailuresPerAddress: 20})
		for i := range 20 {
			if _, err := a.Admit(t.Context(), request(fmt.Sprint("id", i), "wrong", network)); !errors.Is(err, iot.ErrUnauthenticated) {
				t.Fatalf("attempt %d: got %v, want ErrUnauthenticated", i, err)
			}
		}
		for _, from := range []netip.Addr{network, sameNet} {
			if _, err := a.Admit(t.Context(), request("id", "wrong", from)); !errors.Is(err, iot.ErrQuota) {
				t.Errorf("%v: got %v, want ErrQuota", from, err)
			}
		}
		if _, err := a.Admit(t.Context(), good()); err != nil {
			t.Errorf("another address: %v", err)
		}
	})
}

func TestOnlyBadCredentialsCount(t *testing.T) {
	a, _ := newAdmissions(t, adapters.AdmissionOptions{})
	for range 30 {
		if _, err := a.Admit(t.Context(), request(string(adaptertest.DisabledDevice), adaptertest.Password, home)); !errors.Is(err, iot.ErrNotFound) {
			t.Fatalf("got %v, want ErrNotFound", err)
		}
	}
}

// While an auth-id is shut out, a cached admission must not confirm a guess.
func TestCacheTellsGuessersNothing(t *testing.T) {
	a, _ := newAdmissions(t, adapters.AdmissionOptions{MaxAge: time.Hour})
	if _, err := a.Admit(t.Context(), good()); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		_, _ = a.Admit(t.Context(), request(string(adaptertest.Device), fmt.Sprint("guess", i), far))
	}
	if _, err := a.Admit(t.Context(), request(string(adaptertest.Device), adaptertest.Password, far)); !errors.Is(err, iot.ErrQuota) {
		t.Errorf("right guess from afar: got %v, want ErrQuota", err)
	}
	if _, err := a.Admit(t.Context(), good()); err != nil {
		t.Errorf("the device itself: %v", err)
	}
}

func TestAdmissionsAreCounted(t *testing.T) {
	a, _ := newAdmissions(t, adapters.AdmissionOptions{MaxAge: time.Hour})
	for range 3 {
		if _, err := a.Admit(t.Context(), good()); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = a.Admit(t.Context(), request("nobody", "wrong", home))
	a.Following(true)
	got := a.Counts()
	got.Asking = 0 // the last call may not have been uncounted yet
	if want := (adapters.AdmissionCounts{Hits: 2, Misses: 2, Kept: 1, Following: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	a.Following(false)
	if a.Counts().Following {
		t.Error("it still follows")
	}
}

func TestAttemptMemoryIsBounded(t *testing.T) {
	a, _ := newAdmissions(t, adapters.AdmissionOptions{MaxEntries: 100, FailuresPerAddress: -1})
	for i := range 1000 {
		_, _ = a.Admit(t.Context(), request(fmt.Sprint("id", i), "wrong", home))
	}
	if got := a.Watched(); got > 100 {
		t.Errorf("got %d entries, want at most 100", got)
	}
}

func BenchmarkAdmitWarm(b *testing.B) {
	a, _ := newAdmissions(b, adapters.AdmissionOptions{MaxAge: time.Hour})
	r := good()
	if _, err := a.Admit(b.Context(), r); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Admit(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
