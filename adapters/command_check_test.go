package adapters_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/adaptertest"
	"github.com/sluice-iot/sluice/internal/iot"
)

// TestCommandOnBehalf: a gateway that subscribed for one device gets its commands as long
// as the registry says so, in their order, also while it is asked.
func TestCommandOnBehalf(t *testing.T) {
	changed := adapters.Notice{Type: adapters.NoticeDevice, Change: "UPDATE", Tenant: adaptertest.Tenant, Device: adaptertest.Device2, Enabled: true}
	start := func(t *testing.T) (*commandWorld, *adapters.Admissions, *device) {
		w := newCommandWorld(t, adapters.CommandsOptions{})
		adm, inv := newAdmissions(t, adapters.AdmissionOptions{})
		w.inv, w.p = inv, adapters.NewPipeline(adapters.Options{Type: "hono-mqtt", Admissions: adm, Downstream: w.down, Commands: w.commands})
		ss := adapters.NewSessions(w.p, adapters.SessionOptions{})
		t.Cleanup(ss.Close)
		s, err := ss.Open(t.Context(), passwordLogin(t, adaptertest.Gateway, adaptertest.Password), home, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		who, err := s.Admit(t.Context(), "", adaptertest.Device2)
		if err != nil {
			t.Fatal(err)
		}
		return w, adm, w.subscribe(t, adaptertest.Device2, func(s *adapters.Subscribe) { s.Who = who })
	}
	hand := func(w *commandWorld) *outcome {
		o := &outcome{}
		w.commands.Command(command(adaptertest.Device2, ""), o.done)
		return o
	}
	ended := func(t *testing.T, o *outcome, want error) {
		t.Helper()
		if len(*o) != 1 || !errors.Is((*o)[0], want) {
			t.Errorf("got outcomes %v, want %v alone", *o, want)
		}
	}
	t.Run("still may", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, adm, d := start(t)
			before := len(w.inv.Calls())
			hand(w)
			if calls := len(w.inv.Calls()) - before; calls != 0 || len(d.got) != 1 {
				t.Fatalf("%d questions and %d commands before anything changed, want 0 and 1", calls, len(d.got))
			}
			release := w.inv.Block()
			adm.Notice(changed)
			for range 5 {
				hand(w)
			}
			synctest.Wait()
			if len(d.got) != 1 {
				t.Errorf("%d commands before the answer, want the first alone", len(d.got))
			}
			release()
			synctest.Wait()
			hand(w)
			if calls := len(w.inv.Calls()) - before; calls != 1 || len(d.got) != 7 {
				t.Errorf("%d questions and %d commands after a change, want 1 and 7", calls, len(d.got))
			}
			for _, r := range d.got {
				r.done(nil)
			}
		})
	})
	t.Run("may no longer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, adm, d := start(t)
			w.inv.Remove(adaptertest.Gateway)
			adm.Notice(changed)
			first, second := hand(w), hand(w)
			synctest.Wait()
			ended(t, first, iot.ErrForbidden)
			ended(t, second, iot.ErrForbidden)
			if _, there := w.announcer.Now(adaptertest.Tenant, adaptertest.Device2); there || len(d.got) != 0 || w.commands.InFlight() != 0 {
				t.Errorf("announced: %v, %d commands, %d under way; want none of it", there, len(d.got), w.commands.InFlight())
			}
			ended(t, hand(w), iot.ErrUnavailable)
		})
	})
	t.Run("nobody knows", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, adm, d := start(t)
			w.inv.Fail(iot.ErrUnavailable)
			adm.Notice(changed)
			o := hand(w)
			synctest.Wait()
			ended(t, o, iot.ErrUnavailable)
			w.inv.Fail(nil)
			hand(w)
			synctest.Wait()
			if len(d.got) != 1 {
				t.Errorf("%d commands once there is an answer, want 1", len(d.got))
			}
		})
	})
}
