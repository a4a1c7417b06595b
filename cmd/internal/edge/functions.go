package edge

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-iot/sluice/events"
	invokehttp "github.com/sluice-iot/sluice/events/invoke/http"
	invokelambda "github.com/sluice-iot/sluice/events/invoke/lambda"
	"github.com/sluice-iot/sluice/internal/assertion"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/internal/listen"
)

// lambdaScheme begins the name of a function that is invoked on Lambda.
const lambdaScheme = "lambda:"

// openFunctions makes the functions of this process, or the way to where they are.
func (p *Process) openFunctions(ctx, work context.Context) (err error) {
	f := &p.cfg.Functions
	switch {
	case p.functions != nil:
		if p.invoker, err = p.functions.Open(ctx, work); err != nil {
			return err
		}
	case f.Identity == "" && p.parts.HTTP:
		return errors.New("functions.identity is not set: an adapter needs the URL of the identity functions")
	case f.Identity != "": // without, it is a router for applications only; it has no assertion to verify
		if p.invoker, err = p.reach(f.Identity); err != nil {
			return err
		}
	}
	switch {
	case f.Events != "" && (p.parts.Router || p.functions != nil):
		p.eventLog, err = p.reach(f.Events)
	case p.functions != nil:
		p.eventLog = p.functions.Events()
	case p.parts.Router:
		p.log.Warn("events are not kept: functions.events is not set")
	}
	return err
}

// Events answers calls about stored events, nil where there is no event store. It may
// be called once everything is open.
func (p *Process) Events() events.Invoker { return p.eventLog }

// reach is the way to functions by their name in the configuration.
func (p *Process) reach(name string) (events.Invoker, error) {
	if function, ok := strings.CutPrefix(name, lambdaScheme); ok {
		inv, err := invokelambda.New(invokelambda.Config{Function: function, Source: "//" + p.cfg.Name + "/" + p.instance(), Log: p.log})
		if err != nil {
			return nil, err
		}
		p.OnClose(inv.Close)
		return inv, nil
	}
	inv, err := p.functionsByURL(name)
	if err != nil {
		return nil, err
	}
	p.OnClose(inv.Close)
	return inv, nil
}

// functionsByURL proves this process by its certificate, and by a token where one
// is configured. Functions that are reached by a token are a platform's: whose
// certificates to believe is the system's to know unless functions.ca or the tls keys say it.
func (p *Process) functionsByURL(url string) (*invokehttp.Invoker, error) {
	c := invokehttp.Config{URL: url, Source: "//" + p.cfg.Name + "/" + p.instance(), Log: p.log}
	own := p.Own
	if p.cfg.Functions.TokenFile != "" {
		token, err := openToken(p.cfg.Functions.TokenFile)
		if err != nil {
			return nil, err
		}
		c.Token = token.read
		if p.cfg.TLS.Certificate == "" {
			own = listen.Files{CA: p.cfg.TLS.CA}
		}
	}
	if p.cfg.Functions.CA != "" {
		own.CA = p.cfg.Functions.CA
	}
	tlsFor, err := listen.ClientTLS(own, p.log)
	if err != nil {
		return nil, err
	}
	c.TLS = tlsFor("")
	return invokehttp.New(c)
}

// instance names this process among the components.
func (p *Process) instance() string {
	host, err := os.Hostname()
	if err != nil || auth.CheckInstance(auth.Adapter, host) != nil {
		host = "local"
	}
	switch {
	case p.parts.Router && p.parts.adapter():
		return "up/" + host
	case p.parts.Router:
		return "router/" + host
	case p.parts.HTTP:
		return "adapters/http-" + host
	default:
		return "adapters/mqtt-" + host
	}
}

// Take tells the router of this process of facts: changes of the registry, and
// events that another router stored. It may be called once the process is open.
func (p *Process) Take(ctx context.Context, facts []events.Fact) error {
	var rest []events.Fact
	for _, f := range facts {
		switch f := f.(type) {
		case events.EventsAppended:
			p.router.Appended(f.TenantID, f.Partition, f.End)
		case events.EventDeadLettered, events.PresenceFact: // for subscribers: a router has nothing to do with them
		default:
			rest = append(rest, f)
		}
	}
	if len(rest) == 0 {
		return nil
	}
	return p.follower.Take(ctx, rest)
}

// keySource is where a router gets the keys that verify assertions.
func (p *Process) keySource() assertion.KeySource {
	if p.functions != nil {
		return p.functions.Keys()
	}
	return func(ctx context.Context) (assertion.KeySet, time.Duration, error) {
		set, err := events.Call(ctx, p.invoker, events.AssertionKeys{})
		if err != nil {
			return assertion.KeySet{}, 0, err
		}
		return assertion.KeySet{Keys: set.Keys}, set.MaxAge(), nil
	}
}

// assertionKeys are the public keys of the assertions that this process signs.
func (p *Process) assertionKeys(ctx context.Context) ([]json.RawMessage, error) {
	set, _, err := p.functions.Keys()(ctx)
	return set.Keys, err
}

// serveKeys answers with them, for Hono's components.
func (p *Process) serveKeys(w http.ResponseWriter, r *http.Request) {
	set, age, err := p.functions.Keys()(r.Context())
	if err != nil {
		http.Error(w, "keys are not available", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "max-age="+strconv.Itoa(int(age.Seconds())))
	json.NewEncoder(w).Encode(set)
}
