package downstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

const (
	backoffMin   = 50 * time.Millisecond
	backoffMax   = 1500 * time.Millisecond // a router that is back is to know within two seconds whom it can reach
	resolveEvery = 10 * time.Second
	dialTimeout  = 5 * time.Second
	readyTimeout = 15 * time.Second // from the connected socket to the session
	idleTimeout  = 10 * time.Second // announced; a router silent for twice that is gone
)

// Router is one router, or every router behind one name. Either URL or Dial
// is set.
type Router struct {
	// URL is amqp://host[:port] or amqps://host[:port]; the ports are 5672 and
	// 5671 where none is given. Every address behind host gets a connection.
	URL string
	// TLS gives the configuration for amqps, with client certificate and trust;
	// required there. The server name is set where it leaves that open.
	TLS func(serverName string) *tls.Config
	// Dial gives an in-memory connection to a router of this process.
	Dial func(ctx context.Context) (*peer.Pipe, error)
	// Login replaces Options.Login for this router when its mechanism is set.
	Login peer.Login
}

// Resolver finds the addresses behind a host name.
type Resolver func(ctx context.Context, host string) ([]netip.Addr, error)

// systemResolver takes one family of addresses: in the other one there would
// be the same routers again. A name for both, such as localhost, means IPv4.
func systemResolver(ctx context.Context, host string) ([]netip.Addr, error) {
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	var four, six []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	if len(four) > 0 {
		return four, err
	}
	return six, err
}

// router keeps the connections of one Router.
type router struct {
	s     *Set
	r     Router
	login peer.Login
	tls   bool
	host  string
	port  uint16

	mu      sync.Mutex
	keepers map[netip.AddrPort]*keeper
	wg      sync.WaitGroup
}

func newRouter(s *Set, r Router) (*router, error) {
	rt := &router{s: s, r: r, login: r.Login, keepers: map[netip.AddrPort]*keeper{}}
	if rt.login.Mechanism == "" {
		rt.login = s.o.Login
	}
	if (r.URL == "") == (r.Dial == nil) {
		return nil, errors.New("want either an URL or a pipe dialler")
	}
	if r.Dial != nil {
		rt.host = "in-process"
		return rt, nil
	}
	return rt, rt.parse()
}

func (rt *router) parse() error {
	u, err := url.Parse(rt.r.URL)
	if err != nil {
		return err
	}
	switch {
	case u.Scheme != "amqp" && u.Scheme != "amqps":
		return fmt.Errorf("URL %q: scheme %q, want amqp or amqps", u.Redacted(), u.Scheme)
	case u.User != nil:
		return fmt.Errorf("URL %q: user and password do not belong there", u.Redacted())
	case u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("URL %q: want %s://host:port and nothing more", u.Redacted(), u.Scheme)
	}
	rt.host, rt.tls, rt.port = u.Hostname(), u.Scheme == "amqps", 5672
	if rt.tls {
		rt.port = 5671
		if rt.r.TLS == nil {
			return fmt.Errorf("URL %q: amqps needs a TLS configuration", u.Redacted())
		}
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("URL %q: port %q, want 1 to 65535", u.Redacted(), p)
		}
		rt.port = uint16(n)
	}
	return nil
}

// run keeps the router's connections until ctx ends and waits for them; they
// themselves end with hard at the latest.
func (rt *router) run(ctx, hard context.Context) {
	defer rt.wg.Wait()
	if rt.r.Dial != nil {
		k := &keeper{rt: rt, name: rt.host, wanted: true}
		k.run(ctx, hard)
		return
	}
	if a, err := netip.ParseAddr(rt.host); err == nil {
		rt.want(ctx, hard, []netip.Addr{a})
		<-ctx.Done()
		return
	}
	rt.follow(ctx, hard)
}

// follow asks for the addresses behind the name again and again.
func (rt *router) follow(ctx, hard context.Context) {
	pause := backoff{}
	lost := false
	for {
		wait := resolveEvery
		addrs, err := rt.resolve(ctx)
		switch {
		case err == nil:
			if lost {
				rt.s.log.Info("router name resolves again", "router", rt.host)
			}
			lost, pause = false, backoff{}
			rt.want(ctx, hard, addrs)
		case ctx.Err() != nil:
			return
		default: // what is known stays
			if !lost {
				rt.s.log.Warn("router name does not resolve", "router", rt.host, "err", err)
			}
			lost, wait = true, pause.next()
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

func (rt *router) resolve(ctx context.Context) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, err := rt.s.o.Resolve(ctx, rt.host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address behind the name")
	}
	return addrs, err
}

// want starts a keeper for each new address. One whose address is no longer
// listed keeps its connection while it lasts and makes no other.
func (rt *router) want(ctx, hard context.Context, addrs []netip.Addr) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for _, k := range rt.keepers {
		k.wanted = false
	}
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, rt.port)
		if k := rt.keepers[at]; k != nil {
			k.wanted = true
			continue
		}
		k := &keeper{rt: rt, addr: at, name: at.String(), wanted: true}
		rt.keepers[at] = k
		rt.wg.Go(func() { k.run(ctx, hard) })
	}
}

// keeper makes the connection to one address again whenever it is lost.
type keeper struct {
	rt     *router
	addr   netip.AddrPort
	name   string
	wanted bool // guarded by rt.mu
	silent bool // the log knows that there is no connection
}

func (k *keeper) run(ctx, hard context.Context) {
	pause := backoff{}
	for k.stays(ctx) {
		began := time.Now()
		up, err := k.connect(ctx, hard)
		k.report(ctx, up, err)
		if up && time.Since(began) > backoffMax {
			pause = backoff{} // not for a router that throws us out at once
		}
		sleep(ctx, pause.next())
	}
}

// stays reports whether the connection is to be made, and forgets the keeper
// if not.
func (k *keeper) stays(ctx context.Context) bool {
	rt := k.rt
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if k.wanted && ctx.Err() == nil {
		return true
	}
	if rt.keepers[k.addr] == k {
		delete(rt.keepers, k.addr)
	}
	return false
}

// report logs changes of state, not each attempt.
func (k *keeper) report(ctx context.Context, up bool, err error) {
	log := k.rt.s.log
	switch {
	case ctx.Err() != nil:
	case up:
		log.Warn("connection to router ended", "router", k.name, "err", err)
	case !k.silent:
		log.Warn("no connection to router", "router", k.name, "err", err)
	}
	k.silent = true
}

// connect makes one connection and serves it until it ends. It reports whether
// the connection was usable at some time.
func (k *keeper) connect(ctx, hard context.Context) (up bool, err error) {
	c := &conn{s: k.rt.s, name: k.name}
	if c.pc, err = k.open(ctx, c); err != nil {
		return false, err
	}
	if !c.s.track(c) {
		c.pc.Abort()
		return false, context.Canceled
	}
	defer c.s.untrack(c)
	guard := time.AfterFunc(readyTimeout, c.pc.Abort)
	defer guard.Stop()
	c.onUp = func() {
		guard.Stop()
		k.silent = false
		k.rt.s.log.Info("connected to router", "router", k.name)
	}
	err = c.pc.Serve(hard)
	return c.wasUp.Load(), err
}

func (k *keeper) open(ctx context.Context, c *conn) (*peer.Conn, error) {
	rt := k.rt
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	o := peer.Options{
		Config:  peer.Config{ContainerID: rt.s.o.Instance, Hostname: rt.host, IdleTimeout: idleTimeout},
		Handler: c, Wheel: rt.s.wheel, Login: rt.login, OnPanic: rt.s.o.OnPanic,
	}
	if rt.r.Dial != nil {
		p, err := rt.r.Dial(ctx)
		if err != nil {
			return nil, err
		}
		return peer.ConnectPipe(p, o), nil
	}
	if rt.tls {
		if o.TLS = rt.r.TLS(rt.host); o.TLS == nil {
			return nil, errors.New("there is no TLS configuration")
		}
		if o.TLS.ServerName == "" {
			o.TLS = o.TLS.Clone()
			o.TLS.ServerName = rt.host
		}
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	nc, err := dialer.DialContext(ctx, "tcp", k.addr.String())
	if err != nil {
		return nil, err
	}
	return peer.Connect(ctx, nc, o)
}

// backoff is the pause between attempts: it doubles, and is jittered so that
// many adapters do not come at once.
type backoff struct{ last time.Duration }

func (p *backoff) next() time.Duration {
	p.last = min(max(2*p.last, backoffMin), backoffMax)
	return p.last/2 + rand.N(p.last/2)
}

// sleep waits for d and reports whether ctx still stands.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
