package router

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
	"github.com/sluice-iot/sluice/internal/auth"
	"github.com/sluice-iot/sluice/router/forward"
)

// standing watches over connections whose identity may change or end while they
// are open: that of a token ends with it, and that of an entry of the identities
// file when the file says so.
type standing struct {
	again chan struct{} // look at every connection again
	wait  time.Duration // that a connection of [ScopeTokens] may stay

	mu     sync.Mutex
	tokens map[*peer.Conn]*time.Timer
}

func newStanding() *standing {
	return &standing{again: make(chan struct{}, 1), wait: tokenWait, tokens: map[*peer.Conn]*time.Timer{}}
}

// lookAgain has the connections looked at soon. It does not wait.
func (s *standing) lookAgain() {
	select {
	case s.again <- struct{}{}:
	default: // somebody has asked already
	}
}

// opened closes the connection when the token ends that it was opened with, or
// soon where it is there to fetch one.
func (s *standing) opened(c *peer.Conn, id *auth.Identity, scope Scope) {
	end, why := id.Expires, errTokenEnded
	if fetched := time.Now().Add(s.wait); scope == ScopeTokens && (end.IsZero() || fetched.Before(end)) {
		end, why = fetched, errTokenWait
	}
	if end.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[c] = time.AfterFunc(time.Until(end), func() { c.Close(why) })
}

func (s *standing) closed(c *peer.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tokens[c]; t != nil {
		t.Stop()
		delete(s.tokens, c)
	}
}

// What a connection that has lost its right is told (messaging 1.1).
var (
	errTokenEnded   = unauthorized("access token expired")
	errIdentityGone = unauthorized("the identity is no more")
)

func unauthorized(text string) *amqp.Error {
	return &amqp.Error{Condition: amqp.CondUnauthorizedAccess, Description: text}
}

// Version grows whenever what [Router.Sender] says may have changed. It implements
// an ability that the forwarder asks for.
func (r *Router) Version() uint64 {
	if r.directory == nil {
		return 0
	}
	return r.directory.Version()
}

// follow closes connections that lose their right, until ctx ends.
func (r *Router) follow(ctx context.Context) {
	if r.directory == nil {
		return
	}
	defer r.directory.Subscribe(r.standing.lookAgain)()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.standing.again:
			r.review()
		}
	}
}

// review closes every connection whose identity is gone, or may no longer do what
// its links are for. Whoever attaches at this moment is reviewed afterwards: see
// [handler.Handle].
func (r *Router) review() {
	for _, k := range r.forward.Connections() {
		id, _ := k.Conn.Identity().(*auth.Identity)
		now := r.directory.Refresh(id)
		if now == id {
			continue
		}
		if lost := r.lost(k.Conn, id, now); lost != nil {
			r.log.Info("connection lost its right", "identity", id.Name, "remote", k.Conn.Info().RemoteAddr, "why", lost.Description)
			k.Conn.Close(lost)
		}
	}
}

// lost says why a connection of was, who is now, may not stay; nil if it may.
func (r *Router) lost(c *peer.Conn, was, now *auth.Identity) *amqp.Error {
	switch {
	case now == nil:
		return errIdentityGone
	case now.AssertionsRequired && !was.AssertionsRequired || now.AssertionProperty != was.AssertionProperty:
		// The gates of its links were made for who it was.
		return unauthorized("the identity's messages need assertions of another kind now")
	}
	for _, l := range attached(c) {
		var err *amqp.Error
		if l.role == amqp.RoleReceiver { // the peer sends
			_, err = r.Sender(c, l.address)
		} else {
			_, err = r.Receiver(c, l.address)
		}
		if err != nil {
			return unauthorized("the identity lost a right that a link needs: " + err.Description)
		}
	}
	return nil
}

// held is a link of a connection, by our role.
type held struct {
	role    amqp.Role
	address string
}

// attached lists the links of c that an authority was needed for. Links to the
// anonymous terminus are not there: the forwarder asks again about what they send.
func attached(c *peer.Conn) (list []held) {
	c.Lock()
	defer c.Unlock()
	for _, l := range c.Engine().Links() {
		if address := forward.LinkAddress(l); address != "" && !forward.IsDynamic(address) {
			list = append(list, held{l.Role(), address})
		}
	}
	return list
}
