package edge

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"time"

	"github.com/sluice-iot/sluice/adapters"
	adaptermqtt "github.com/sluice-iot/sluice/adapters/mqtt"
	"github.com/sluice-iot/sluice/events"
	posthttp "github.com/sluice-iot/sluice/events/post/http"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/config"
)

// inProcess is the name by which adapters are known to a router of the same process.
const inProcess = "up-0"

// commandAddress names this process to routers: the name that it may receive by, which
// several processes may share, and one of its own that a restart changes.
func (p *Process) commandAddress() (string, error) {
	name := inProcess
	if len(p.cfg.Routers) > 0 {
		leaf, err := p.Own.Leaf()
		if err != nil {
			return "", err
		}
		id, err := auth.Component(leaf)
		if err != nil {
			return "", fmt.Errorf("%s: %w", p.Own.Certificate, err)
		}
		name = id.Name
	}
	var epoch [6]byte
	rand.Read(epoch[:])
	return name + "/" + hex.EncodeToString(epoch[:]), nil
}

// openPresence makes what tells applications and subscribers when devices can be reached.
func (p *Process) openPresence() error {
	var poster events.Poster
	if sink := os.Getenv(posthttp.SinkVariable); sink != "" {
		http, err := posthttp.New(posthttp.Config{Name: p.cfg.Name, Sink: sink, Log: p.log})
		if err != nil {
			return err
		}
		p.OnClose(http.Close)
		poster = http
	}
	p.presence = adapters.NewPresence(adapters.PresenceOptions{Invoker: p.invoker, Poster: poster, Logger: p.log})
	return nil
}

// ackTimeout is the adapter's for the configuration's, where 0 is for ever.
func ackTimeout(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

var connectionEvents = map[string]adaptermqtt.ConnectionEvents{
	config.ConnectionsIgnored: adaptermqtt.ConnectionsIgnored,
	config.ConnectionsLogged:  adaptermqtt.ConnectionsLogged,
	config.ConnectionsSent:    adaptermqtt.ConnectionsSent,
}
