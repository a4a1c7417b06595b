package mqtt

import (
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/sluice-iot/sluice/internal/iot"
)

// Bounds of the commands of one client that wait for it.
const (
	maxUnacknowledged = 1000 // sent, those whose time is over included
	maxWaiting        = 100  // not sent: as many are sent as the client takes
)

// inFlight is how far a delivery is.
type inFlight struct {
	id    uint16      // packet identifier; 0 = not sent, or with quality of service 0
	timer *time.Timer // nil = it has all the time
	over  bool        // it has its outcome
}

// commands are those of one client that have no outcome yet. It exists only while
// there is one, or may come a PUBACK. Guarded by conn.mu.
type commands struct {
	written deliveries // of quality of service 0, in what is to be sent

	// unacknowledged are sent with quality of service 1, by packet identifier. nil
	// stands for one whose time is over: the identifier is in use until the client
	// acknowledges it, which it may do late.
	unacknowledged map[uint16]*delivery
	live           int // of these without those whose time is over
	waiting        deliveries
}

// waited reports whether the client may yet say what became of a command.
func (s *commands) waited() bool { return s != nil && s.live > 0 }

type deliveries []*delivery

// settle tells the outcome of deliveries: nil, or that the client is gone. No lock
// is held.
func (l deliveries) settle(err error) {
	if err != nil {
		err = errGone
	}
	for _, d := range l {
		d.done(err)
	}
}

// list returns c.commands, which it makes where there is none. c.mu is held.
func (c *conn) commandList() *commands {
	if c.commands == nil {
		c.commands = new(commands)
	}
	return c.commands
}

// tidy drops c.commands when there is nothing in it. c.mu is held.
func (c *conn) tidy() {
	s := c.commands
	if s != nil && len(s.written) == 0 && len(s.unacknowledged) == 0 && len(s.waiting) == 0 {
		c.commands = nil
	}
}

// sendOnce sends a command with quality of service 0: it has its outcome when it
// is written. c.mu is held.
func (c *conn) sendOnce(d *delivery) error {
	if err := c.sendCommand(d); err != nil {
		return err
	}
	s := c.commandList()
	s.written = append(s.written, d)
	return nil
}

// takeWritten takes the commands that have their outcome when what is to be sent
// is written. c.mu is held.
func (c *conn) takeWritten() deliveries {
	if c.commands == nil {
		return nil
	}
	written := c.commands.written
	c.commands.written = nil
	c.tidy()
	return written
}

// sendAcknowledged sends a command with quality of service 1, behind those that
// wait because the client takes no more at a time. c.mu is held.
func (c *conn) sendAcknowledged(d *delivery) error {
	s := c.commandList()
	defer c.tidy()
	switch {
	case len(s.waiting) == 0 && len(s.unacknowledged) < c.window():
		if err := c.sendNumbered(d); err != nil {
			return err
		}
	case len(s.waiting) >= maxWaiting:
		return errNoPlace
	default:
		s.waiting = append(s.waiting, d)
	}
	if timeout := c.a.o.CommandAckTimeout; timeout > 0 {
		d.timer = time.AfterFunc(timeout, func() { c.tooLate(d) })
	}
	return nil
}

// window is how many commands may be sent that are not acknowledged (MQTT 5,
// 4.9).
func (c *conn) window() int { return min(int(c.receive), maxUnacknowledged) }

// sendNumbered sends a command with a packet identifier that is not in use. c.mu
// is held.
func (c *conn) sendNumbered(d *delivery) error {
	s := c.commands
	for {
		c.lastID++
		if _, used := s.unacknowledged[c.lastID]; !used && c.lastID != 0 {
			break
		}
	}
	d.id = c.lastID
	if err := c.sendCommand(d); err != nil {
		return err
	}
	if s.unacknowledged == nil {
		s.unacknowledged = make(map[uint16]*delivery)
	}
	s.unacknowledged[d.id] = d
	s.live++
	return nil
}

// sendWaiting sends commands that wait while the client takes some, and returns
// those that cannot be sent. c.mu is held.
func (c *conn) sendWaiting() (failed []*delivery, errs []error) {
	s := c.commands
	for len(s.waiting) > 0 && len(s.unacknowledged) < c.window() && !c.ended {
		d := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		if err := c.sendNumbered(d); err != nil {
			d.end()
			failed, errs = append(failed, d), append(errs, err)
		} else if d.timer != nil {
			d.timer.Reset(c.a.o.CommandAckTimeout)
		}
	}
	return failed, errs
}

// end notes that d has its outcome; false where it had it before. conn.mu is held.
func (d *delivery) end() bool {
	if d.over {
		return false
	}
	d.over = true
	if d.timer != nil {
		d.timer.Stop()
	}
	return true
}

// tooLate ends a delivery whose time is over. One that was not sent never is.
func (c *conn) tooLate(d *delivery) {
	c.mu.Lock()
	if !d.end() {
		c.mu.Unlock()
		return
	}
	if d.id != 0 {
		c.commands.unacknowledged[d.id] = nil
		c.commands.live--
	} else {
		c.commands.waiting = without(c.commands.waiting, d)
		c.tidy()
	}
	c.left()
	c.mu.Unlock()
	c.debug("command not acknowledged", "for", d.cmd.Device, "sent", d.id != 0)
	d.done(errNoPuback)
}

func without(list deliveries, d *delivery) deliveries {
	kept := list[:0:0]
	for _, other := range list {
		if other != d {
			kept = append(kept, other)
		}
	}
	return kept
}

// acknowledged takes a PUBACK. One that comes late, or for nothing that was sent,
// is ignored.
func (c *conn) acknowledged(h header, body []byte) error {
	if err := c.unexpired(); err != nil {
		return err
	}
	id, refused, err := c.readPuback(h, body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	s := c.commands
	if s == nil {
		c.mu.Unlock()
		return nil
	}
	d, sent := s.unacknowledged[id]
	delete(s.unacknowledged, id)
	if d != nil {
		d.end()
		s.live--
	}
	var failed []*delivery
	var errs []error
	if sent {
		failed, errs = c.sendWaiting()
	}
	c.tidy()
	c.left()
	c.mu.Unlock()
	if d != nil {
		d.done(refused)
	}
	for i, f := range failed {
		f.done(errs[i])
	}
	return nil
}

// readPuback reads a PUBACK. refused is what the application is told of one that
// says no; nil where it says yes.
func (c *conn) readPuback(h header, body []byte) (id uint16, refused, err error) {
	switch {
	case len(body) < 2:
		return 0, nil, malformed(packets.ErrMalformedPacketID)
	case c.version < 5 || len(body) == 2:
		return uint16(body[0])<<8 | uint16(body[1]), nil, nil
	}
	pk := packets.Packet{FixedHeader: h.FixedHeader, ProtocolVersion: c.version}
	if err := c.decode(&pk, body); err != nil {
		return 0, nil, err
	}
	if pk.ReasonCode < 0x80 {
		return pk.PacketID, nil, nil
	}
	why := ""
	if s := pk.Properties.ReasonString; s != "" && plainText(s) {
		why = ": " + reasonString(s)
	}
	return pk.PacketID, iot.Errorf(iot.ErrInvalid, "the device refused the command with reason code 0x%02X%s", pk.ReasonCode, why), nil
}

// releaseCommands ends every delivery of a client that is gone. c.mu is held, but
// not while they are told.
func (c *conn) releaseCommands() {
	s := c.commands
	if s == nil {
		return
	}
	c.commands = nil
	all := append(s.written, s.waiting...)
	for _, d := range s.unacknowledged {
		if d != nil {
			all = append(all, d)
		}
	}
	for _, d := range all {
		d.end()
	}
	c.mu.Unlock()
	all.settle(errGone)
	c.mu.Lock()
}
