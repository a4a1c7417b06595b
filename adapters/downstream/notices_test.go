package downstream_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/adapters/downstream"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// heard is a NoticeHandler that remembers.
type heard struct {
	mu        sync.Mutex
	notices   []adapters.Notice
	following []bool
}

func (h *heard) Notice(n adapters.Notice) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.notices = append(h.notices, n)
}

func (h *heard) Following(yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.following = append(h.following, yes)
}

func (h *heard) want(t *testing.T, notices int, following ...bool) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.notices) != notices || !slices.Equal(h.following, following) {
		t.Errorf("got %d notices and following %v, want %d and %v", len(h.notices), h.following, notices, following)
	}
}

// notify sends a notification to every receiver of an address.
func (r *scripted) notify(t *testing.T, address, payload string) {
	t.Helper()
	message, err := (&amqp.Message{Data: [][]byte{[]byte(payload)}}).Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	r.each(address, func(l *peer.Link) {
		if got := l.Send(&peer.Outgoing{Tail: message}); got != peer.Sent {
			t.Errorf("%s: send = %v, want sent", address, got)
		}
	})
	synctest.Wait()
}

const (
	aboutTenant = `{"type":"tenant-change-v1","change":"UPDATE","tenant-id":"T","enabled":true}`
	aboutDevice = `{"type":"device-change-v1","change":"DELETE","tenant-id":"T","device-id":"D","enabled":false}`
)

func TestNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := newScripted(t, "r1"), &heard{}
		start(t, downstream.Options{Notices: h}, r)
		synctest.Wait()
		h.want(t, 0, true)
		r.notify(t, adapters.NoticeAddresses[0], aboutTenant)
		r.notify(t, adapters.NoticeAddresses[1], aboutDevice)
		h.want(t, 2, true)
		if got := h.notices[1]; got.Type != adapters.NoticeDevice || got.Device != "D" || got.Enabled {
			t.Errorf("got %+v", got)
		}
		r.notify(t, adapters.NoticeAddresses[1], "nonsense")
		h.want(t, 2, true)
		if want := []amqp.Descriptor{amqp.DescAccepted, amqp.DescAccepted, amqp.DescRejected}; !slices.Equal(r.outcomes, want) {
			t.Errorf("got outcomes %v, want %v", r.outcomes, want)
		}
		for i := range 20_000 { // many more than the first credit
			if i%100 == 0 {
				synctest.Wait()
			}
			r.each(adapters.NoticeAddresses[1], func(l *peer.Link) {
				message, _ := (&amqp.Message{Data: [][]byte{[]byte(aboutDevice)}}).Append(nil)
				if l.Credit() > 0 {
					l.Send(&peer.Outgoing{Settled: true, Tail: message})
				}
			})
		}
		synctest.Wait()
		if got := len(h.notices); got != 20_002 {
			t.Errorf("got %d notices, want 20,002: credit does not come back", got)
		}
	})
}

// Notices come by any router; only when the last way is lost they are missed.
func TestFollowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r1, r2, h := newScripted(t, "r1"), newScripted(t, "r2"), &heard{}
		_, stop := start(t, downstream.Options{Notices: h}, r1, r2)
		synctest.Wait()
		h.want(t, 0, true)
		r1.setDown(true)
		r1.kill()
		synctest.Wait()
		h.want(t, 0, true)
		r2.each(adapters.NoticeAddresses[0], func(l *peer.Link) {
			l.Detach(&amqp.Error{Condition: amqp.CondResourceLimitExceeded, Description: "too slow"})
		})
		synctest.Wait()
		h.want(t, 0, true, false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		h.want(t, 0, true, false, true)
		r2.setDown(true)
		r2.kill()
		synctest.Wait()
		h.want(t, 0, true, false, true, false)
		r2.setDown(false)
		time.Sleep(time.Minute)
		synctest.Wait()
		h.want(t, 0, true, false, true, false, true)
		stop()
		h.want(t, 0, true, false, true, false, true, false)
	})
}
