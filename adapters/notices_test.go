package adapters_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/iot"
)

func admit(t *testing.T, a *adapters.Admissions, r *adapters.Request) adapters.Admission {
	t.Helper()
	got, err := a.Admit(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func acting() *adapters.Request {
	r := request(string(adaptertest.Gateway), adaptertest.Password, home)
	r.Admit.DeviceID = adaptertest.Device2
	return r
}

func TestNoticesEndAnswers(t *testing.T) {
	const tenant = adaptertest.Tenant
	for _, tt := range []struct {
		name   string
		notice adapters.Notice
		asked  [3]bool // again: device, gateway for another device, device of another tenant
	}{
		{"device", adapters.Notice{Type: adapters.NoticeDevice, Tenant: tenant, Device: adaptertest.Device, Enabled: true}, [3]bool{true, false, false}},
		{"device acted for", adapters.Notice{Type: adapters.NoticeDevice, Tenant: tenant, Device: adaptertest.Device2}, [3]bool{false, true, false}},
		{"gateway", adapters.Notice{Type: adapters.NoticeDevice, Tenant: tenant, Device: adaptertest.Gateway}, [3]bool{false, true, false}},
		{"credentials", adapters.Notice{Type: adapters.NoticeCredentials, Tenant: tenant, Device: adaptertest.Device}, [3]bool{true, false, false}},
		{"credentials of gateway", adapters.Notice{Type: adapters.NoticeCredentials, Tenant: tenant, Device: adaptertest.Gateway}, [3]bool{false, true, false}},
		{"tenant disabled", adapters.Notice{Type: adapters.NoticeTenant, Tenant: tenant, Change: "UPDATE"}, [3]bool{true, true, false}},
		{"tenant updated", adapters.Notice{Type: adapters.NoticeTenant, Tenant: tenant, Change: "UPDATE", Enabled: true}, [3]bool{}},
		{"all devices deleted", adapters.Notice{Type: adapters.NoticeDevicesDeleted, Tenant: tenant}, [3]bool{true, true, false}},
		{"other tenant", adapters.Notice{Type: adapters.NoticeDevicesDeleted, Tenant: adaptertest.OtherTenant}, [3]bool{false, false, true}},
		{"unknown type", adapters.Notice{Type: "later-v9", Tenant: tenant, Device: adaptertest.OtherDevice}, [3]bool{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, inv := newAdmissions(t, adapters.AdmissionOptions{})
				a.Following(true)
				other := good()
				other.Admit.TenantRef.ID = adaptertest.OtherTenant
				requests := []*adapters.Request{good(), acting(), other}
				for _, r := range requests {
					admit(t, a, r)
				}
				synctest.Wait()
				a.Notice(tt.notice)
				synctest.Wait()
				for i, r := range requests {
					before := len(inv.Calls())
					admit(t, a, r)
					if again := len(inv.Calls()) > before; again != tt.asked[i] {
						t.Errorf("request %d: asked again %v, want %v", i, again, tt.asked[i])
					}
				}
			})
		})
	}
}

// Nothing that was asked for while notices did not come is used for long.
func TestUnfollowedAnswersAgeEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, inv := newAdmissions(t, adapters.AdmissionOptions{})
		step := func(what string, wait time.Duration, want int) {
			t.Helper()
			time.Sleep(wait)
			admit(t, a, good())
			if got := len(inv.Calls()); got != want {
				t.Errorf("%s: got %d calls, want %d", what, got, want)
			}
		}
		step("first", 0, 1)
		step("young", adapters.UnfollowedAge-time.Second, 1)
		step("old", time.Second, 2)
		a.Following(true)
		step("asked before they came", adapters.UnfollowedAge, 3)
		step("followed", 50*time.Minute, 3)
		step("as old as it says", 10*time.Minute, 4)
		time.Sleep(adapters.UnfollowedAge)
		a.Following(false)
		step("lost", 0, 5)
		a.Following(true)
		step("back, young", 0, 5)
		step("back, old", adapters.UnfollowedAge, 6)
	})
}

// A notice that overtakes an answer keeps it from being used again.
func TestNoticeWhileAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, inv := newAdmissions(t, adapters.AdmissionOptions{})
		a.Following(true)
		release := inv.Block()
		done := make(chan error)
		go func() {
			_, err := a.Admit(t.Context(), good())
			done <- err
		}()
		synctest.Wait()
		a.Notice(adapters.Notice{Type: adapters.NoticeDevice, Tenant: adaptertest.Tenant, Device: adaptertest.Device})
		release()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := a.Cached() + a.Indexed(); got != 0 {
			t.Errorf("got %d answers kept, want none", got)
		}
		release = inv.Block()
		go func() {
			_, err := a.Admit(t.Context(), good())
			done <- err
		}()
		synctest.Wait()
		for i := range 2000 { // more than are remembered
			a.Notice(adapters.Notice{Type: adapters.NoticeDevice, Tenant: "elsewhere", Device: iot.DeviceID(fmt.Sprint(i))})
		}
		release()
		<-done
		synctest.Wait()
		if got := a.Cached(); got != 0 {
			t.Errorf("got %d answers kept after too many notices to tell, want none", got)
		}
	})
}

func TestChangedTenantIsAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, inv := newAdmissions(t, adapters.AdmissionOptions{})
		a.Following(true)
		changed := adapters.Notice{Type: adapters.NoticeTenant, Tenant: adaptertest.Tenant, Change: "UPDATE", Enabled: true}
		a.Notice(changed)
		synctest.Wait()
		if got := inv.Lookups(); got != 0 {
			t.Errorf("got %d look-ups of a tenant that nobody uses, want none", got)
		}
		const devices = 50
		requests := make([]*adapters.Request, devices)
		for i := range requests {
			requests[i] = good()
			requests[i].Admit.Context = map[string]any{"client-id": i}
			admit(t, a, requests[i])
		}
		synctest.Wait() // an answer that a notice overtakes is not kept
		inv.Defaults(map[string]any{"color": "blue"}, nil, "")
		for range 10 {
			a.Notice(changed)
		}
		synctest.Wait()
		if got := inv.Lookups(); got < 1 || got > 2 {
			t.Errorf("got %d look-ups, want 1 or 2", got)
		}
		for _, r := range requests {
			if got := admit(t, a, r).TenantObject().Defaults["color"]; got != "blue" {
				t.Fatalf("got color %v, want blue", got)
			}
		}
		if got := len(inv.Calls()); got != devices {
			t.Errorf("got %d admissions, want %d", got, devices)
		}
		inv.Adapters(events.TenantAdapter{Type: "hono-mqtt"}, events.TenantAdapter{Type: "hono-http", Enabled: true})
		a.Notice(changed)
		synctest.Wait()
		if got := a.Cached(); got != 0 {
			t.Errorf("got %d answers kept after the tenant's adapters changed, want none", got)
		}
		admit(t, a, good())
		synctest.Wait()
		inv.Fail(errors.New("down"))
		a.Notice(changed)
		synctest.Wait()
		if got := a.Cached(); got != 0 {
			t.Errorf("got %d answers kept of a tenant that cannot be looked up, want none", got)
		}
	})
}

func TestNoticesBesideAdmissions(t *testing.T) {
	a, _ := newAdmissions(t, adapters.AdmissionOptions{MaxEntries: 128})
	a.Following(true)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 500 {
				r := good()
				r.Admit.Context = map[string]any{"client-id": i % 200}
				if w == 0 {
					kind := []string{adapters.NoticeDevice, adapters.NoticeTenant, adapters.NoticeDevicesDeleted}[i%3]
					a.Notice(adapters.Notice{Type: kind, Tenant: adaptertest.Tenant, Device: map[bool]iot.DeviceID{true: adaptertest.Device}[i%3 == 0], Enabled: i%2 == 0})
					continue
				}
				if _, err := a.Admit(t.Context(), r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	a.Close()
	if cached, found := a.Cached(), a.Indexed(); cached != found {
		t.Errorf("got %d answers but %d of them indexed", cached, found)
	}
}

func TestParseNotice(t *testing.T) {
	n, err := adapters.ParseNotice([]byte(`{"type":"device-change-v1","source":"device-registry","creation-time":"2026-01-01T00:00:00Z","change":"UPDATE","tenant-id":"T","device-id":"D","enabled":true,"later":1}`))
	want := adapters.Notice{Type: adapters.NoticeDevice, Change: "UPDATE", Tenant: "T", Device: "D", Enabled: true}
	if err != nil || n != want {
		t.Errorf("got %+v, %v, want %+v", n, err, want)
	}
	for _, bad := range []string{"", "null", "{}", "[]", `{"tenant-id":5}`, `{"tenant-id":"T"`} {
		if _, err := adapters.ParseNotice([]byte(bad)); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

// A tenant's answers get new settings one by one. A notice that comes meanwhile finds
// each of them, before or after.
func TestNoticeWhileSettingsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAdmissions(t, adapters.AdmissionOptions{})
		a.Following(true)
		time.Sleep(time.Nanosecond) // what is asked later is followed
		for round := range 30 {
			for i := range 300 {
				r := good()
				r.Admit.Context = map[string]any{"client-id": i}
				admit(t, a, r)
			}
			synctest.Wait()
			a.Notice(adapters.Notice{Type: adapters.NoticeTenant, Change: "UPDATE", Tenant: adaptertest.Tenant, Enabled: true})
			for range rand.N(20) {
				runtime.Gosched()
			}
			a.Notice(adapters.Notice{Type: adapters.NoticeCredentials, Tenant: adaptertest.Tenant, Device: adaptertest.Device})
			synctest.Wait()
			if n := a.Cached(); n != 0 {
				t.Fatalf("round %d: %d answers outlived a notice about their device", round, n)
			}
		}
	})
}
