package wire

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/sluice-iot/sluice/internal/amqp"
)

// Options say whom to connect to and what to announce.
type Options struct {
	Addr           string
	User, Password string      // SASL PLAIN; without a user EXTERNAL
	Bearer         string      // token for OAUTHBEARER; "" = none of it
	TLS            *tls.Config // nil = plain text
	MaxFrame       uint32      // bytes; 0 = 65536
	Window         uint32      // the session's incoming-window in frames; 0 = 2^31-1
	Container      string      // "" = "wire"
	Timeout        time.Duration
}

// Client is one connection with one session.
type Client struct {
	Conn    net.Conn
	Open    *amqp.Open  // the peer's
	Begin   *amqp.Begin // the peer's
	MaxSend int         // bytes: the longest frame that the peer takes

	r     *bufio.Reader
	max   uint32
	buf   []byte
	limit atomic.Uint32 // the transfer-id at which the session's window ends
	sent  atomic.Uint32
}

const defaultFrame = 65536

// Dial connects, logs in and opens connection and session.
func Dial(o Options) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	conn, err := net.DialTimeout("tcp", o.Addr, o.Timeout)
	if err != nil {
		return nil, err
	}
	if o.TLS != nil {
		conn = tls.Client(conn, o.TLS)
	}
	c := &Client{Conn: conn, r: bufio.NewReaderSize(conn, 8<<10), max: o.MaxFrame}
	if c.max == 0 {
		c.max = defaultFrame
	}
	_ = conn.SetDeadline(time.Now().Add(o.Timeout))
	if err := c.handshake(o); err != nil {
		conn.Close()
		return nil, err
	}
	return c, conn.SetDeadline(time.Time{})
}

func (c *Client) handshake(o Options) error {
	if err := c.login(o); err != nil {
		return err
	}
	if o.Container == "" {
		o.Container = "wire"
	}
	if o.Window == 0 {
		o.Window = 1<<31 - 1
	}
	host, _, _ := net.SplitHostPort(o.Addr)
	out := []byte(amqp.HeaderAMQP)
	out = amqp.AppendFrame(out, amqp.FrameAMQP, 0, &amqp.Open{ContainerID: o.Container, Hostname: host, MaxFrameSize: c.max, ChannelMax: 1})
	out = amqp.AppendFrame(out, amqp.FrameAMQP, 0, &amqp.Begin{IncomingWindow: o.Window, OutgoingWindow: 1<<31 - 1, HandleMax: 1<<32 - 1})
	if _, err := c.Conn.Write(out); err != nil {
		return err
	}
	var err error
	if c.Open, _, err = Await[*amqp.Open](c); err != nil {
		return err
	}
	c.MaxSend = int(min(c.Open.MaxFrameSize, defaultFrame))
	if c.Begin, _, err = Await[*amqp.Begin](c); err != nil {
		return err
	}
	c.limit.Store(c.Begin.IncomingWindow)
	return nil
}

func (c *Client) login(o Options) error {
	init := &amqp.SASLInit{Mechanism: "EXTERNAL", InitialResponse: []byte{}}
	if o.User != "" {
		init = &amqp.SASLInit{Mechanism: "PLAIN", InitialResponse: []byte("\x00" + o.User + "\x00" + o.Password)}
	}
	if o.Bearer != "" {
		init = &amqp.SASLInit{Mechanism: "OAUTHBEARER", InitialResponse: []byte("n,,\x01auth=Bearer " + o.Bearer + "\x01\x01")}
	}
	if _, err := c.Conn.Write(amqp.AppendFrame([]byte(amqp.HeaderSASL), amqp.FrameSASL, 0, init)); err != nil {
		return err
	}
	outcome, _, err := Await[*amqp.SASLOutcome](c)
	if err != nil {
		return err
	}
	if outcome.Code != amqp.SASLOK {
		return fmt.Errorf("login refused with SASL code %d", outcome.Code)
	}
	return nil
}

// Append appends a frame of the session.
func Append(b []byte, p amqp.Performative, payload []byte) []byte {
	at := len(b)
	b = p.Append(amqp.OpenFrame(b, amqp.FrameAMQP, 0))
	return amqp.CloseFrame(append(b, payload...), at)
}

// Write sends one frame.
func (c *Client) Write(p amqp.Performative, payload []byte) error {
	_, err := c.Conn.Write(Append(nil, p, payload))
	return err
}

// ReadBody returns the body of the next frame that is not empty, which lives
// until the next call. Protocol headers are passed over.
func (c *Client) ReadBody() ([]byte, error) {
	for {
		head, err := c.r.Peek(8)
		if err != nil {
			return nil, err
		}
		if string(head[:4]) == "AMQP" {
			_, _ = c.r.Discard(8)
			continue
		}
		size := binary.BigEndian.Uint32(head)
		if size < 8 || size > max(c.max, 16<<10) {
			return nil, fmt.Errorf("a frame of %d bytes; announced %d", size, c.max)
		}
		if cap(c.buf) < int(size) {
			c.buf = make([]byte, size)
		}
		c.buf = c.buf[:size]
		if _, err := io.ReadFull(c.r, c.buf); err != nil {
			return nil, err
		}
		if body := c.buf[4*int(c.buf[4]):]; len(body) > 0 {
			return body, nil
		}
	}
}

// Buffered reports whether more has come already.
func (c *Client) Buffered() bool { return c.r.Buffered() > 0 }

// Read returns the next frame; byte slices live until the next call.
func (c *Client) Read() (amqp.Performative, []byte, error) {
	body, err := c.ReadBody()
	if err != nil {
		return nil, nil, err
	}
	p, payload, err := amqp.DecodePerformative(body)
	if f, ok := p.(*amqp.Flow); ok {
		c.limit.Store(f.NextIncomingID + f.IncomingWindow) // ours begin at 0, as does an absent one
	}
	return p, payload, err
}

// Window is how many more transfers the session takes by what was read so far.
func (c *Client) Window() int { return int(int32(c.limit.Load() - c.sent.Load())) }

// Sent counts a transfer that the caller wrote.
func (c *Client) Sent() { c.sent.Add(1) }

// Await reads until a frame of the given kind comes. A detach, end or close that
// is not asked for is an error, and so is the end of the connection.
func Await[P amqp.Performative](c *Client) (p P, payload []byte, err error) {
	for {
		got, payload, err := c.Read()
		if err != nil {
			return p, nil, err
		}
		if want, ok := got.(P); ok {
			return want, payload, nil
		}
		if err := ended(got); err != nil {
			return p, nil, err
		}
	}
}

func ended(p amqp.Performative) error {
	var why *amqp.Error
	switch p := p.(type) {
	case *amqp.Detach:
		why = p.Error
	case *amqp.End:
		why = p.Error
	case *amqp.Close:
		why = p.Error
	default:
		return nil
	}
	if why == nil {
		return errors.New("the peer ended the link, the session or the connection")
	}
	return why
}

// Receiver is the attach of a receiver of address.
func Receiver(handle uint32, name, address string) *amqp.Attach {
	return &amqp.Attach{Name: name, Handle: handle, Role: amqp.RoleReceiver, SenderSettleMode: amqp.SenderMixed,
		Source: &amqp.Source{Address: address}, Target: &amqp.Target{}}
}

// Sender is the attach of a sender to address.
func Sender(handle uint32, name, address string) *amqp.Attach {
	return &amqp.Attach{Name: name, Handle: handle, Role: amqp.RoleSender, SenderSettleMode: amqp.SenderMixed,
		Source: &amqp.Source{}, Target: &amqp.Target{Address: address}}
}

// Credit is a flow that lets a sender send credit deliveries beyond count.
func Credit(handle, count, credit uint32) *amqp.Flow {
	return &amqp.Flow{HasNextIncomingID: false, IncomingWindow: 1<<31 - 1, OutgoingWindow: 1<<31 - 1,
		HasHandle: true, Handle: handle, HasDeliveryCount: true, DeliveryCount: count, HasLinkCredit: true, LinkCredit: credit}
}

// Transfer is the first frame of a delivery.
func Transfer(handle, id uint32, settled, more bool) *amqp.Transfer {
	return &amqp.Transfer{Handle: handle, DeliveryID: id, HasDeliveryID: true, DeliveryTag: binary.BigEndian.AppendUint32(nil, id),
		HasMessageFormat: true, Settled: settled, HasSettled: true, More: more}
}

// Data is a message with one section of bytes; the section may have more bytes than body.
func Data(body []byte, length int) []byte {
	b := append(make([]byte, 0, 8+len(body)), 0x00, 0x53, 0x75, 0xb0)
	return append(binary.BigEndian.AppendUint32(b, uint32(length)), body...)
}

// Cut breaks the connection as a machine does that loses its power.
func (c *Client) Cut() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Conn.Close()
}
