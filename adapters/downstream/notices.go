package downstream

import (
	"github.com/sluice-iot/sluice/adapters"
	"github.com/sluice-iot/sluice/internal/amqp"
	"github.com/sluice-iot/sluice/internal/amqp/peer"
)

const (
	// noticeCredit is what a router may send ahead: a bulk change of many
	// devices is as many notices, and a receiver that cannot follow is detached.
	noticeCredit = 5000
	maxNotice    = 64 << 10
)

// noticeLink is a receiving link for one of the addresses of notices.
type noticeLink struct {
	c       *conn
	address string
	up      bool // guarded by the connection
}

func (c *conn) attachNotices(address string, b *peer.Batch) {
	c.pc.Lock()
	defer c.pc.Unlock()
	c.attachOwn(address, peer.Attachment{
		Role:             amqp.RoleReceiver,
		SenderSettleMode: amqp.SenderMixed, ReceiverSettleMode: amqp.ReceiverFirst,
		Source: &amqp.Source{Address: address, HasAddress: true},
		Target: &amqp.Target{},
		Credit: noticeCredit, MaxMessageSize: maxNotice,
	}, &noticeLink{c: c, address: address}, b)
}

// noticesAttached takes note that a router answered an attach; without a source
// it refused.
func (c *conn) noticesAttached(n *noticeLink, ev *peer.Event) {
	if ev.Attach.Source == nil {
		return
	}
	c.pc.Lock()
	n.up = true
	c.noticesUp++
	all := c.noticesUp == len(adapters.NoticeAddresses)
	c.pc.Unlock()
	if all {
		c.s.following(1)
	}
}

// noticesDetached takes note that notices no longer come, and asks for them
// again where only the link is gone.
func (c *conn) noticesDetached(n *noticeLink, ev *peer.Event) {
	c.pc.Lock()
	was := n.up && c.noticesUp == len(adapters.NoticeAddresses)
	if n.up {
		n.up = false
		c.noticesUp--
	}
	stands := c.stands()
	c.pc.Unlock()
	if was {
		c.s.following(-1)
	}
	if !stands {
		return
	}
	if ev.Error != nil {
		c.s.log.Warn("router sends no registry notices", "router", c.name, "address", n.address, "err", ev.Error)
	}
	c.later(func(b *peer.Batch) { c.attachNotices(n.address, b) })
}

// notice hands one on, settles it and gives its credit back.
func (c *conn) notice(b *peer.Batch, ev *peer.Event) {
	state := amqp.StateAccepted
	if n, err := readNotice(ev.Payload); err == nil {
		c.s.o.Notices.Notice(n)
	} else {
		c.s.log.Warn("registry notice is not readable", "router", c.name, "err", err)
		state = rejectedNotice
	}
	c.pc.Lock()
	defer c.pc.Unlock()
	if !ev.Settled {
		ev.Link.Settle(ev.ID, state, true)
		b.Touch(c.pc)
	}
	if ev.Link.Credit() < noticeCredit/2 {
		ev.Link.SetCredit(noticeCredit)
		b.Touch(c.pc)
	}
}

var rejectedNotice = amqp.Raw(amqp.AppendRejected(nil, &amqp.Error{Condition: amqp.CondInvalidField, Description: "not a registry notification"}))

func readNotice(message []byte) (adapters.Notice, error) {
	m, err := amqp.DecodeMessage(message)
	if err != nil {
		return adapters.Notice{}, err
	}
	var payload []byte
	for _, d := range m.Data {
		payload = append(payload, d...)
	}
	return adapters.ParseNotice(payload)
}

// following counts the connections by which all notices come. One is enough:
// each router is told of every change.
func (s *Set) following(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.followed > 0
	s.followed += by
	if now := s.followed > 0; now != before {
		s.o.Notices.Following(now)
	}
}
