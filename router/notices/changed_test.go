package notices_test

import (
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-iot/sluice/events"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/router"
	"github.com/sluice-iot/sluice/router/notices"
)

// listener is a publisher that hears of changes.
type listener struct {
	mu    sync.Mutex
	heard []string
}

func (l *listener) Publish(_ string, _ []byte, done func(amqp.Raw)) { done(amqp.StateAccepted) }

func (l *listener) RegistryChanged(c *events.RegistryChanged) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = append(l.heard, string(c.TenantID)+"/"+string(c.DeviceID)+" "+c.Change)
}

// A router is one.
var _ interface {
	notices.Publisher
	RegistryChanged(*events.RegistryChanged)
} = (*router.Router)(nil)

// TestPublisherHearsOfChanges shows that whoever keeps registrations hears of each change,
// also one that ends no token, and of one that comes again once more.
func TestPublisherHearsOfChanges(t *testing.T) {
	l := &listener{}
	f := notices.New(notices.Options{Publisher: l})
	s := newFeed()
	created, updated, tenant := s.change("T", "d", "CREATE"), s.change("T", "d", "UPDATE"), s.change("T", "", "UPDATE")
	for _, facts := range [][]events.Fact{{created}, {updated, tenant}, {updated}} {
		if err := f.Take(t.Context(), facts); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"T/d CREATE", "T/d UPDATE", "T/ UPDATE", "T/d UPDATE"}, l.heard); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
