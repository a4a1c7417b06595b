package notices_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/iot"
	"github.com/sluice-iot/sluice/router/notices"
)

func TestWhatFactsDo(t *testing.T) {
	tenant := func(change string, enabled bool) events.RegistryChanged {
		return events.RegistryChanged{Type: events.TypeTenantChanged, Change: change, Enabled: enabled, InvalidateCache: change == "DELETE"}
	}
	device := func(change string, enabled bool) events.RegistryChanged {
		return events.RegistryChanged{Type: events.TypeDeviceChanged, DeviceID: "D", Change: change, Enabled: enabled}
	}
	const rev = "00000000000000000007"
	for _, tt := range []struct {
		name    string
		change  events.RegistryChanged
		void    *voided
		address string
		typ     string
	}{
		{"tenant created", tenant("CREATE", true), nil, "registry-tenant", "tenant-change-v1"},
		{"tenant updated", tenant("UPDATE", true), nil, "registry-tenant", "tenant-change-v1"},
		{"tenant disabled", tenant("UPDATE", false), &voided{"T", "", rev}, "registry-tenant", "tenant-change-v1"},
		{"tenant deleted", tenant("DELETE", false), &voided{"T", "", rev}, "registry-tenant", "tenant-change-v1"},
		{"device created", device("CREATE", true), nil, "registry-device", "device-change-v1"},
		{"device updated", device("UPDATE", true), &voided{"T", "D", rev}, "registry-device", "device-change-v1"},
		{"device disabled", device("UPDATE", false), &voided{"T", "D", rev}, "registry-device", "device-change-v1"},
		{"device deleted", device("DELETE", false), &voided{"T", "D", rev}, "registry-device", "device-change-v1"},
		{"credentials", events.RegistryChanged{Type: events.TypeCredentialsChanged, DeviceID: "D"}, nil, "registry-device", "credentials-change-v1"},
		{"devices deleted", events.RegistryChanged{Type: events.TypeDevicesDeleted}, &voided{"T", "", rev}, "registry-device", "all-devices-of-tenant-deleted-v1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := follow(t, notices.Options{}, newFeed())
				synctest.Wait()
				tt.change.TenantID, tt.change.Sequence, tt.change.At = "T", 7, time.Now()
				x.take(t, tt.change, tt.change)
				x.take(t, tt.change)
				synctest.Wait()
				var want []voided
				if tt.void != nil {
					want = []voided{*tt.void}
				}
				if got := x.v.all(); len(want) == 0 && len(got) > 0 || len(want) > 0 && (len(got) == 0 || got[0] != want[0]) {
					t.Errorf("voided %v, want %v", got, want)
				}
				sent := x.p.all()
				if len(sent) != 1 {
					t.Fatalf("%d notifications, want one however often the fact came", len(sent))
				}
				address := "notification/" + tt.address
				if p := sent[0].Message.Properties; sent[0].Address != address || p.To != address || p.ContentType != "application/json" {
					t.Errorf("%s, %+v", sent[0].Address, p)
				}
				if got := x.p.told(t)[0]["type"]; got != tt.typ {
					t.Errorf("type %v", got)
				}
			})
		})
	}
}

func TestGapThatClosesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFeed()
		x := follow(t, notices.Options{}, s)
		synctest.Wait()
		a, b, c, d := s.change("T", "A", "CREATE"), s.change("T", "A", "UPDATE"), s.change("T", "B", "DELETE"), s.change("T", "C", "DELETE")
		x.take(t, a)
		x.take(t, d, c) // b is late
		if len(x.v.all()) != 2 {
			t.Error("what came before its turn does not void at once")
		}
		time.Sleep(900 * time.Millisecond)
		x.take(t, b)
		time.Sleep(10 * time.Second)
		if n := len(s.calls()); n != 1 {
			t.Errorf("%d calls, want that of the start only", n)
		}
		if n := len(x.p.all()); n != 4 {
			t.Errorf("%d notifications", n)
		}
	})
}

func TestGapIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFeed()
		x := follow(t, notices.Options{}, s)
		synctest.Wait()
		var facts []events.RegistryChanged
		for i := range 6 {
			facts = append(facts, s.change("T", iot.DeviceID(fmt.Sprint(i)), "UPDATE"))
		}
		u := s.change("U", "D", "DELETE")
		s.change("U", "E", "DELETE")
		s.fail(iot.Errorf(iot.ErrUnavailable, "down"))
		x.take(t, facts[0], facts[3], facts[5], u, s.change("U", "F", "DELETE"))
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if n := len(s.calls()); n != 1 {
			t.Fatalf("asked after less than a second: %d calls", n)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n := len(s.calls()); n != 2 {
			t.Fatalf("not asked after a second: %d calls", n)
		}
		s.fail(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		calls := s.calls()
		if d := cmp.Diff(map[iot.TenantID]uint64{"T": 1, "U": 1}, calls[len(calls)-1].Sequences); d != "" {
			t.Error(d)
		}
		if n := len(x.p.all()); n != 9 {
			t.Errorf("%d notifications, want 9", n)
		}
		if d := len(x.v.all()); d < 9 {
			t.Errorf("%d voids", d)
		}
		n := len(calls)
		x.take(t, facts[2]) // the fact itself, at last
		time.Sleep(time.Minute)
		if len(s.calls()) != n || len(x.p.all()) != 9 {
			t.Error("the late fact is done again")
		}
	})
}

// TestGapThatTheFeedForgot is one that the feed has nothing about: it is not asked for for ever.
func TestGapThatTheFeedForgot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFeed()
		x := follow(t, notices.Options{}, s)
		synctest.Wait()
		a := s.change("T", "A", "UPDATE")
		s.change("T", "B", "UPDATE")
		c := s.change("T", "C", "UPDATE")
		s.forget("T", 2)
		x.take(t, a, c)
		time.Sleep(10 * time.Minute)
		if n := len(s.calls()); n != 2 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestStartCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFeed()
		for i := range 3000 {
			s.change(iot.TenantID(fmt.Sprint("T", i%70)), "old", "UPDATE")
		}
		time.Sleep(20 * time.Minute)
		s.change("T1", "new", "DELETE")
		s.fail(iot.Errorf(iot.ErrUnavailable, "starting"))
		x := follow(t, notices.Options{}, s)
		if got := x.v.limited(); got != notices.UnfollowedAge {
			t.Errorf("age limit %s before the start", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := x.v.limited(); got != notices.UnfollowedAge {
			t.Errorf("age limit %s before it has caught up", got)
		}
		s.fail(nil)
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := x.v.limited(); got != 0 {
			t.Errorf("age limit %s after it has caught up", got)
		}
		if n := len(x.v.all()); n != 3001 {
			t.Errorf("%d voids", n)
		}
		told := x.p.told(t)
		if len(told) != 1 || told[0]["device-id"] != "new" {
			t.Errorf("adapters are told %v", told)
		}
		first := s.calls()[0]
		if age := time.Since(first.Since); age < 25*time.Hour || age > 26*time.Hour {
			t.Errorf("asked for what is at most %s old", age)
		}
	})
}

func TestConfirmation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFeed()
		x := follow(t, notices.Options{}, s)
		synctest.Wait()
		time.Sleep(time.Hour)
		if n := len(s.calls()); n != 1 {
			t.Fatalf("%d calls while no token was used", n)
		}
		s.change("T", "D", "DELETE") // by a writer that was killed before it posted
		time.Sleep(time.Hour)
		x.v.use()
		synctest.Wait()
		calls := s.calls()
		if len(calls) != 2 || len(x.v.all()) != 1 || len(x.p.all()) != 1 {
			t.Fatalf("%d calls, %d voids, %d notifications", len(calls), len(x.v.all()), len(x.p.all()))
		}
		if age := time.Since(calls[1].Since); age != 2*time.Hour+time.Minute {
			t.Errorf("asked for the last %s, want back to the last time and a minute more", age)
		}
		// Under load it asks in time and not more often.
		was := len(s.calls())
		for range 600 {
			time.Sleep(time.Second)
			x.v.use()
			synctest.Wait()
		}
		if n := len(s.calls()) - was; n < 10 || n > 12 {
			t.Errorf("%d calls in ten minutes of use, want one each 50 s", n)
		}
		if n := len(x.p.all()); n != 1 {
			t.Errorf("what the overlap brings again is told again: %d", n)
		}
		if x.v.limited() != 0 {
			t.Error("limited")
		}
	})
}

// TestLostFeed has the functions down for longer than a token may be believed.
func TestLostFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFeed()
		x := follow(t, notices.Options{}, s)
		synctest.Wait()
		s.fail(iot.Errorf(iot.ErrUnavailable, "down"))
		for i := range 330 {
			time.Sleep(time.Second)
			x.v.use()
			synctest.Wait()
			if got := x.v.limited(); i < 299 && got != 0 || i >= 311 && got != notices.UnfollowedAge {
				t.Fatalf("age limit %s after %d s", got, i+1)
			}
		}
		s.change("T", "D", "DELETE")
		s.fail(nil)
		time.Sleep(20 * time.Second)
		x.v.use()
		synctest.Wait()
		if got := x.v.limited(); got != 0 {
			t.Errorf("age limit %s after it has caught up", got)
		}
		if len(x.v.all()) != 1 {
			t.Error("the change was not found")
		}
	})
}

// TestTooManyTenants has more tenants in the feed than can be asked about: tokens
// are believed as far back as the feed was followed.
func TestTooManyTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFeed()
		for i := range 2*events.MaxPositions + 10 {
			s.change(iot.TenantID(fmt.Sprint("T", i)), "D", "UPDATE")
		}
		time.Sleep(2 * time.Minute) // else the overlap has them all again
		x := follow(t, notices.Options{}, s)
		time.Sleep(time.Hour)
		x.v.use()
		synctest.Wait()
		if got := x.v.limited(); got != time.Hour {
			t.Errorf("age limit %s after an hour", got)
		}
		time.Sleep(24 * time.Hour)
		x.v.use()
		synctest.Wait()
		if got := x.v.limited(); got != 0 {
			t.Errorf("age limit %s after a day", got)
		}
	})
}

func TestWithoutFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := follow(t, notices.Options{}, nil)
		x.take(t, newFeed().change("T", "D", "DELETE"))
		time.Sleep(time.Hour)
		if x.v.limited() != notices.UnfollowedAge || len(x.p.all()) != 1 {
			t.Error(x.v.limited(), len(x.p.all()))
		}
	})
}

// TestForgottenTenants has room for fewer tenants than there are.
func TestForgottenTenants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFeed()
		x := follow(t, notices.Options{MaxTenants: 10}, s)
		synctest.Wait()
		for range 3 {
			for i := range 30 {
				x.take(t, s.change(iot.TenantID(fmt.Sprint("T", i)), "D", "UPDATE"))
			}
		}
		time.Sleep(time.Minute)
		if n := len(s.calls()); n != 1 {
			t.Errorf("%d calls: a tenant that is not known has no gap", n)
		}
		if n := len(x.p.all()); n != 90 {
			t.Errorf("%d notifications", n)
		}
	})
}

// TestAdaptersThatDoNotFollow never settle: facts are refused when too many
// notifications wait, their voids hold nevertheless, and nothing is lost.
func TestAdaptersThatDoNotFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFeed()
		x := follow(t, notices.Options{}, s)
		synctest.Wait()
		x.p.answer(nil)
		var refused int
		for i := range 12_000 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			c := s.change("T", iot.DeviceID(fmt.Sprint(i)), "UPDATE")
			if err := x.Take(ctx, []events.Fact{c}); errors.Is(err, iot.ErrUnavailable) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
			cancel()
		}
		if n := len(x.v.all()); refused == 0 || n != 12_000 {
			t.Errorf("%d refused, %d voids", refused, n)
		}
		before := len(x.p.all())
		time.Sleep(10 * time.Second)
		if n := len(x.p.all()) - before; n < 4000 {
			t.Errorf("%d notifications in ten seconds: those who are stuck hold up the others", n)
		}
		x.p.answer(amqp.StateAccepted)
		time.Sleep(2 * time.Minute)
		x.v.use()
		time.Sleep(10 * time.Second)
		if n := len(x.p.all()); n != 12_000 {
			t.Errorf("%d notifications in the end, want every one", n)
		}
	})
}

func TestProvisioned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := follow(t, notices.Options{}, newFeed())
		x.p.answer(amqp.StateReleased)
		p := events.DeviceProvisioned{TenantID: "T", DeviceID: "D", GatewayID: "G", Method: events.ByGateway, At: time.Now()}
		if err := x.Take(t.Context(), []events.Fact{p}); !errors.Is(err, iot.ErrUnavailable) {
			t.Errorf("nobody there: %v", err)
		}
		x.p.answer(nil)
		began := time.Now()
		if err := x.Take(t.Context(), []events.Fact{p}); !errors.Is(err, iot.ErrUnavailable) || time.Since(began) > 10*time.Second {
			t.Errorf("never settled: %v after %s", err, time.Since(began))
		}
		x.p.answer(amqp.StateAccepted)
		x.take(t, p)
		x.take(t, p) // again, because the answer was lost
		sent := x.p.all()
		if len(sent) != 3 {
			t.Fatalf("%d events", len(sent))
		}
		m := sent[2].Message
		if sent[2].Address != "event/T" || m.Properties.To != "event/T" || !m.Header.Durable || len(m.Data) != 0 ||
			m.Properties.ContentType != "application/vnd.eclipse-hono-device-provisioning-notification" {
			t.Errorf("%s: %+v", sent[2].Address, m)
		}
		got := map[string]any{}
		for _, p := range m.ApplicationProperties {
			got[p.Key.(string)] = p.Value
		}
		want := map[string]any{"hono_registration_status": "NEW", "tenant_id": "T", "device_id": "D", "gateway_id": "G",
			"orig_adapter": "hono-device-registry", "orig_address": "event", "qos": int32(1)}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		p.At = p.At.Add(time.Hour) // deleted, and provisioned anew
		x.take(t, p)
		if len(x.p.all()) != 4 {
			t.Error("the second provisioning is not told")
		}
		x.p.answer(amqp.AppendRejected(nil, nil))
		p.DeviceID = "E"
		x.take(t, p)
		x.take(t, p)
		if len(x.p.all()) != 5 {
			t.Error("what an application rejected is sent again")
		}
	})
}
