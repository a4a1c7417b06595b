package peer_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

// TestMain fails when the tests leave goroutines behind.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	fuzzing := flag.Lookup("test.fuzz").Value.String() != "" // it keeps goroutines of its own
	for range 100 {
		if runtime.NumGoroutine() <= before || code != 0 || fuzzing {
			os.Exit(code)
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Fprintf(os.Stderr, "%d goroutines are left, %d there were\n", runtime.NumGoroutine(), before)
	pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	os.Exit(1)
}

// plain lets in user u with password p, by EXTERNAL whoever has a certificate,
// and by ANONYMOUS peers of this process.
type plain struct{}

func (plain) Mechanisms(info *peer.PeerInfo) []amqp.Symbol {
	switch {
	case info.Local != nil:
		return []amqp.Symbol{"ANONYMOUS"}
	case len(info.Certificates) > 0:
		return []amqp.Symbol{"EXTERNAL", "PLAIN"}
	}
	return []amqp.Symbol{"PLAIN"}
}

func (plain) Begin(info *peer.PeerInfo, mechanism amqp.Symbol) (peer.Exchange, error) {
	return login{info, mechanism}, nil
}

type login struct {
	info      *peer.PeerInfo
	mechanism amqp.Symbol
}

func (l login) Step(_ context.Context, response []byte) ([]byte, any, error) {
	switch {
	case l.mechanism == "ANONYMOUS":
		return nil, l.info.Local, nil
	case l.mechanism == "EXTERNAL":
		return nil, l.info.Certificates[0].Subject.CommonName, nil
	case bytes.Equal(response, []byte("\x00u\x00p")):
		return nil, "u", nil
	case bytes.Contains(response, []byte("away")):
		return nil, nil, fmt.Errorf("the database is away")
	}
	return nil, nil, &peer.AuthError{Code: amqp.SASLAuth}
}

// relay is a Handler that passes what comes on an address to the receivers on it,
// one after the other, and their outcomes back. It keeps what nobody takes.
type relay struct {
	credit uint32 // given to senders
	onPush func(c *peer.Conn, payload []byte)

	mu     sync.Mutex
	nodes  map[string]*node
	closed []error
}

type node struct {
	outs []*peer.Link
	next int
	held []message
}

type message struct {
	from    *peer.Link
	id      uint32
	settled bool
	payload []byte
}

func newRelay() *relay { return &relay{credit: 50, nodes: map[string]*node{}} }

func (r *relay) node(address string) *node {
	n := r.nodes[address]
	if n == nil {
		n = &node{}
		r.nodes[address] = n
	}
	return n
}

func (r *relay) Handle(b *peer.Batch, c *peer.Conn, events []peer.Event) {
	for _, ev := range events {
		switch ev.Kind {
		case peer.EventAttach:
			r.attach(b, c, ev)
		case peer.EventDelivery:
			r.push(b, c, ev)
		case peer.EventCredit:
			r.pump(b, ev.Link.Data.(string))
			c.Lock()
			ev.Link.Drained()
			b.Touch(c)
			c.Unlock()
		case peer.EventWritable:
			r.Writable(b, c)
		case peer.EventOutcome:
			if !ev.Settled {
				c.Lock()
				ev.Link.SettleSent(ev.ID, ev.State)
				b.Touch(c)
				c.Unlock()
			}
			settle(b, ev.Token, ev.State)
		case peer.EventLost:
			settle(b, ev.Token, amqp.StateDeliveryFailed)
		case peer.EventDetach:
			r.detach(ev.Link)
		}
	}
}

func settle(b *peer.Batch, t peer.Token, state amqp.Raw) {
	l, ok := t.Ref.(*peer.Link)
	if !ok {
		return
	}
	l.Conn().Lock()
	defer l.Conn().Unlock()
	l.Settle(t.ID, state, true)
	b.Touch(l.Conn())
}

func (r *relay) attach(b *peer.Batch, c *peer.Conn, ev peer.Event) {
	c.Lock()
	defer b.Touch(c)
	defer c.Unlock()
	l := ev.Link
	if l.Role() == amqp.RoleReceiver {
		if ev.Attach.Target == nil || ev.Attach.Target.Address == "forbidden" {
			l.Refuse(&amqp.Error{Condition: amqp.CondUnauthorizedAccess, Description: "not for you"})
			return
		}
		l.Data = ev.Attach.Target.Address
		l.Accept(peer.Attachment{Credit: r.credit})
		return
	}
	l.Data = ev.Attach.Source.Address
	l.Accept(peer.Attachment{})
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.node(ev.Attach.Source.Address)
	n.outs = append(n.outs, l)
}

func (r *relay) detach(l *peer.Link) {
	if address, ok := l.Data.(string); ok {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := r.node(address)
		n.outs = slices.DeleteFunc(n.outs, func(o *peer.Link) bool { return o == l })
	}
}

func (r *relay) push(b *peer.Batch, c *peer.Conn, ev peer.Event) {
	if r.onPush != nil {
		r.onPush(c, ev.Payload)
	}
	address := ev.Link.Data.(string)
	r.mu.Lock()
	n := r.node(address)
	n.held = append(n.held, message{ev.Link, ev.ID, ev.Settled, bytes.Clone(ev.Payload)})
	r.mu.Unlock()
	r.pump(b, address)
	c.Lock()
	ev.Link.SetCredit(r.credit)
	b.Touch(c)
	c.Unlock()
}

// pump sends what an address holds; the relay is the address's lock.
func (r *relay) pump(b *peer.Batch, address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.node(address)
	for tries := 0; len(n.held) > 0 && tries < len(n.outs); {
		l := n.outs[n.next%len(n.outs)]
		n.next++
		m := n.held[0]
		o := peer.Outgoing{Settled: m.settled, Tail: m.payload}
		if !m.settled {
			o.Token = peer.Token{Ref: m.from, ID: m.id}
		}
		l.Conn().Lock()
		res := l.Send(&o)
		b.Touch(l.Conn())
		l.Conn().Unlock()
		if res != peer.Sent {
			tries++
			continue
		}
		tries = 0
		n.held = n.held[1:]
	}
}

func (r *relay) Writable(b *peer.Batch, _ *peer.Conn) {
	r.mu.Lock()
	var all []string
	for a := range r.nodes {
		all = append(all, a)
	}
	r.mu.Unlock()
	for _, a := range all {
		r.pump(b, a)
	}
}

func (r *relay) Closed(_ *peer.Batch, _ *peer.Conn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = append(r.closed, err)
}

// server serves sockets on loopback until the test ends.
type server struct {
	addr string
	errs chan error // what each Accept returned
	mu   sync.Mutex
	all  []*peer.Conn
}

func startServer(t *testing.T, o peer.Options) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: ln.Addr().String(), errs: make(chan error, 1000)}
	ctx, cancel := context.WithCancel(context.Background())
	if o.Wheel == nil {
		o.Wheel = peer.NewWheel()
	}
	if o.Auth == nil {
		o.Auth = plain{}
	}
	var wg sync.WaitGroup
	wg.Go(func() { o.Wheel.Run(ctx) })
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				s.errs <- peer.Accept(ctx, nc, o, func(c *peer.Conn) {
					s.mu.Lock()
					s.all = append(s.all, c)
					s.mu.Unlock()
				})
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		cancel()
		wg.Wait()
	})
	return s
}

// certificates makes an authority and leaves for localhost and a client.
func certificates(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey := key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	root, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(root)
	leaf := func(n int64, name string) tls.Certificate {
		k := key()
		c := &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, c, root, k.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
	}
	server = &tls.Config{Certificates: []tls.Certificate{leaf(2, "localhost")}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}
	client = &tls.Config{Certificates: []tls.Certificate{leaf(3, "adapter-1")}, RootCAs: pool, ServerName: "localhost"}
	return server, client
}
