package adaptertest

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/iot"
)

// message checks what applications get to see of an upload.
func (h Harness) message(t *testing.T) {
	for _, tt := range []struct {
		name            string
		upload          Upload
		device, gateway iot.DeviceID
		contentType     string
	}{
		{"own, at least once", own(), Device, "", "text/plain"},
		{"own, at most once", with(func(u *Upload) { u.QoS = iot.AtMostOnce }), Device, "", "text/plain"},
		{"no content type", with(func(u *Upload) { u.ContentType = "" }), Device, "", "application/octet-stream"},
		{"empty notification", with(func(u *Upload) { u.ContentType, u.Payload = adapters.EmptyNotification, nil }), Device, "", adapters.EmptyNotification},
		{"gateway, tenant left out", asGateway("", Device2), Device2, Gateway, "text/plain"},
		{"gateway, tenant given", asGateway(Tenant, Device2), Device2, Gateway, "text/plain"},
		{"device names itself", with(func(u *Upload) { u.TargetTenant, u.TargetDevice = Tenant, Device }), Device, "", "text/plain"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := h.start(t)
			e.check(t, tt.upload, nil)
			sent := e.down.Sent()
			if len(sent) != 1 {
				t.Fatalf("got %d messages, want 1", len(sent))
			}
			m := sent[0]
			if m.Tenant != Tenant || m.Device != tt.device || m.Gateway != tt.gateway {
				t.Errorf("got tenant %q, device %q, gateway %q; want %q, %q, %q", m.Tenant, m.Device, m.Gateway, Tenant, tt.device, tt.gateway)
			}
			if m.Endpoint != tt.upload.Endpoint || m.QoS != tt.upload.QoS {
				t.Errorf("got %s with QoS %d, want %s with %d", m.Endpoint, m.QoS, tt.upload.Endpoint, tt.upload.QoS)
			}
			if m.ContentType != tt.contentType || !bytes.Equal(m.Payload, tt.upload.Payload) {
				t.Errorf("got %q %q, want %q %q", m.ContentType, m.Payload, tt.contentType, tt.upload.Payload)
			}
			if m.Adapter != h.Type || m.Address == "" || !strings.HasPrefix(m.Assertion, "token-") {
				t.Errorf("got adapter %q, address %q, assertion %q; want %q, an address, a token", m.Adapter, m.Address, m.Assertion, h.Type)
			}
			if m.ID == "" || m.Created.IsZero() || m.TraceParent == "" {
				t.Errorf("got id %q, creation time %v, trace %q: want all of them set", m.ID, m.Created, m.TraceParent)
			}
		})
	}
}

// statuses checks each refusal that happens before a message leaves.
func (h Harness) statuses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		upload Upload
		want   error
	}{
		{"wrong password", with(func(u *Upload) { u.Password = "wrong" }), iot.ErrUnauthenticated},
		{"unknown auth-id", with(func(u *Upload) { u.AuthID = "nobody" }), iot.ErrUnauthenticated},
		{"unknown tenant", with(func(u *Upload) { u.Tenant = "nowhere" }), iot.ErrUnauthenticated},
		{"adapter disabled", with(func(u *Upload) { u.Tenant = OffTenant }), iot.ErrForbidden},
		{"device disabled", with(func(u *Upload) { u.AuthID = string(DisabledDevice) }), iot.ErrNotFound},
		{"device behind gateway unknown", asGateway("", "nobody"), iot.ErrNotFound},
		{"device behind gateway disabled", asGateway(Tenant, DisabledDevice), iot.ErrNotFound},
		{"gateway may not act, tenant left out", asGateway("", OtherDevice), iot.ErrForbidden},
		{"gateway may not act, tenant given", asGateway(Tenant, OtherDevice), iot.ErrForbidden},
		{"foreign tenant", asGateway(OtherTenant, Device2), iot.ErrForbidden},
		{"no payload, no content type", with(func(u *Upload) { u.ContentType, u.Payload = "", nil }), iot.ErrInvalid},
		{"empty notification with payload", with(func(u *Upload) { u.ContentType = adapters.EmptyNotification }), iot.ErrInvalid},
		{"event at most once", with(func(u *Upload) { u.Endpoint, u.QoS = iot.Event, iot.AtMostOnce }), iot.ErrInvalid},
		{"payload too large", with(func(u *Upload) { u.Payload = make([]byte, 2*adapters.DefaultMaxPayload) }), iot.ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := h.start(t)
			e.check(t, tt.upload, tt.want)
			if n := len(e.down.Sent()); n != 0 {
				t.Errorf("%d messages left, want none", n)
			}
		})
	}
	t.Run("admission unavailable", func(t *testing.T) {
		e := h.start(t)
		e.inv.Fail(iot.Errorf(iot.ErrUnavailable, "store is down"))
		e.check(t, own(), iot.ErrUnavailable)
		e.inv.Fail(errors.New("something else"))
		e.check(t, own(), iot.ErrUnavailable)
		e.inv.Fail(nil)
		e.check(t, own(), nil) // errors are not cached
	})
}

// outcomes checks what a device hears of the fate of its message.
func (h Harness) outcomes(t *testing.T) {
	for _, err := range []error{iot.ErrNoCredit, iot.ErrInvalid, iot.ErrTooLarge, iot.ErrUnavailable, iot.ErrTimeout} {
		t.Run(err.Error(), func(t *testing.T) {
			e := h.start(t)
			e.down.Outcome(func(*iot.Message) error { return err })
			e.check(t, own(), err)
		})
	}
}

func (h Harness) events(t *testing.T) {
	event := with(func(u *Upload) { u.Endpoint = iot.Event })
	t.Run("not stored", func(t *testing.T) {
		e := h.start(t)
		e.down.Outcome(func(*iot.Message) error { return iot.ErrNoCredit })
		e.check(t, event, iot.ErrNoCredit)
		e.check(t, with(func(u *Upload) { u.Endpoint, u.Password = iot.Event, "wrong" }), iot.ErrUnauthenticated)
	})
	t.Run("stored", func(t *testing.T) {
		e := h.start(t)
		e.check(t, event, nil)
		if sent := e.down.Sent(); len(sent) != 1 || sent[0].Endpoint != iot.Event || sent[0].QoS != iot.AtLeastOnce {
			t.Errorf("got %d messages, want one event with QoS 1", len(sent))
		}
	})
}

func (h Harness) collapse(t *testing.T) {
	e := h.start(t)
	release := e.inv.Block()
	defer release()
	const uploads = 20
	var wg sync.WaitGroup
	for range uploads {
		wg.Go(func() { e.check(t, own(), nil) })
	}
	release()
	wg.Wait()
	if got := len(e.inv.Calls()); got != 1 {
		t.Errorf("%d uploads cost %d admissions, want 1", uploads, got)
	}
	if got := len(e.down.Sent()); got != uploads {
		t.Errorf("got %d messages, want %d", got, uploads)
	}
}

func (h Harness) renewal(t *testing.T) {
	e := h.start(t)
	e.down.Outcome(func(m *iot.Message) error {
		if m.Assertion == "token-1" {
			return iot.Errorf(iot.ErrForbidden, "assertion is void")
		}
		return nil
	})
	e.check(t, own(), nil)
	if sent := e.down.Sent(); len(sent) != 2 || sent[0].ID != sent[1].ID || sent[1].Assertion != "token-2" {
		t.Errorf("got %d messages, want the same one twice, then with token-2", len(sent))
	}

	e = h.start(t)
	e.check(t, own(), nil)
	e.down.Outcome(func(*iot.Message) error { return iot.Errorf(iot.ErrForbidden, "assertion is void") })
	e.check(t, own(), iot.ErrUnavailable)
	e.inv.Fail(iot.Errorf(iot.ErrNotFound, "device is disabled or not registered"))
	e.check(t, own(), iot.ErrNotFound)
}

func (h Harness) attempts(t *testing.T) {
	e := h.start(t)
	e.check(t, own(), nil)
	wrong := with(func(u *Upload) { u.AuthID, u.Password = string(Gateway), "wrong" })
	for range adapters.DefaultFailuresPerAuthID {
		e.check(t, wrong, iot.ErrUnauthenticated)
	}
	asked := len(e.inv.Calls())
	e.check(t, wrong, iot.ErrQuota)
	if got := len(e.inv.Calls()); got != asked {
		t.Errorf("a refused attempt cost %d invocations, want none", got-asked)
	}
	e.check(t, own(), nil) // others go on
}

func (h Harness) stop(t *testing.T) {
	e := h.start(t)
	entered, release := e.down.Block()
	defer release()
	var wg sync.WaitGroup
	wg.Go(func() { e.check(t, own(), nil) })
	<-entered
	wg.Go(func() {
		if err := e.Stop(t.Context()); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	release()
	wg.Wait()
}
