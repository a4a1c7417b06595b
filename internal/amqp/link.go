package amqp

import "fmt"

// Role is the role of the link endpoint that sends a frame.
type Role bool

// The two roles.
const (
	RoleSender   Role = false
	RoleReceiver Role = true
)

func (r Role) String() string {
	if r == RoleReceiver {
		return "receiver"
	}
	return "sender"
}

// SenderSettleMode says how a sender settles (Part 2, section 2.8.2).
type SenderSettleMode uint8

// ReceiverSettleMode says when a receiver settles (Part 2, section 2.8.3).
type ReceiverSettleMode uint8

// The settle modes. Mixed and first are the defaults.
const (
	SenderUnsettled SenderSettleMode = 0
	SenderSettled   SenderSettleMode = 1
	SenderMixed     SenderSettleMode = 2

	ReceiverFirst  ReceiverSettleMode = 0
	ReceiverSecond ReceiverSettleMode = 1
)

// Attach attaches a link (Part 2, section 2.7.3).
type Attach struct {
	Name                 string
	Handle               uint32
	Role                 Role
	SenderSettleMode     SenderSettleMode   // mixed when absent
	ReceiverSettleMode   ReceiverSettleMode // first when absent
	Source               *Source            // nil = none: refused, or a sender without source
	Target               *Target            // nil = none, or a coordinator
	Coordinator          bool               // the target is a transaction coordinator
	Unsettled            Raw                // encoded map
	IncompleteUnsettled  bool
	InitialDeliveryCount uint32 // mandatory from a sender
	MaxMessageSize       uint64 // bytes; 0 = no limit
	OfferedCapabilities  []Symbol
	DesiredCapabilities  []Symbol
	Properties           Raw
}

func (*Attach) descriptor() Descriptor { return DescAttach }

func (p *Attach) decode(f *fields) {
	*p = Attach{SenderSettleMode: SenderMixed}
	if f.must("attach.name") {
		p.Name = f.r.string()
	}
	if f.must("attach.handle") {
		p.Handle = f.r.uint()
	}
	if f.must("attach.role") {
		p.Role = Role(f.r.bool())
	}
	if f.next("attach.snd-settle-mode") {
		at := f.r.off
		p.SenderSettleMode = SenderSettleMode(f.r.ubyte())
		if p.SenderSettleMode > SenderMixed {
			f.r.failAt(at, "settle mode %d", p.SenderSettleMode)
		}
	}
	if f.next("attach.rcv-settle-mode") {
		p.ReceiverSettleMode = f.receiverMode()
	}
	p.Source = f.sourceField("attach.source")
	p.Target, p.Coordinator = f.targetField("attach.target")
	p.Unsettled = f.mapField("attach.unsettled")
	p.IncompleteUnsettled = f.boolField("attach.incomplete-unsettled")
	if f.next("attach.initial-delivery-count") {
		p.InitialDeliveryCount = f.r.uint()
	}
	if f.next("attach.max-message-size") {
		p.MaxMessageSize = f.r.ulong()
	}
	p.OfferedCapabilities = f.symbolsField("attach.offered-capabilities")
	p.DesiredCapabilities = f.symbolsField("attach.desired-capabilities")
	p.Properties = f.mapField("attach.properties")
}

// Append implements [Performative].
func (p *Attach) Append(b []byte) []byte {
	l := listOf(b, DescAttach)
	l.string(p.Name, true)
	l.uint(p.Handle)
	l.set(AppendBool(l.b, bool(p.Role)))
	l.set(AppendUbyte(l.b, uint8(p.SenderSettleMode)))
	l.set(AppendUbyte(l.b, uint8(p.ReceiverSettleMode)))
	if p.Source != nil {
		l.set(p.Source.Append(l.b))
	} else {
		l.null()
	}
	switch {
	case p.Target != nil:
		l.set(p.Target.Append(l.b))
	case p.Coordinator:
		l.set(append(l.b, codeDescribed, codeSmallUlong, byte(DescCoordinator), codeList0))
	default:
		l.null()
	}
	l.raw(p.Unsettled)
	l.boolIf(p.IncompleteUnsettled)
	l.uintIf(p.InitialDeliveryCount, p.Role == RoleSender)
	if p.MaxMessageSize != 0 {
		l.set(AppendUlong(l.b, p.MaxMessageSize))
	} else {
		l.null()
	}
	l.symbols(p.OfferedCapabilities)
	l.symbols(p.DesiredCapabilities)
	l.raw(p.Properties)
	return l.done()
}

// Detach detaches a link (Part 2, section 2.7.7).
type Detach struct {
	Handle uint32
	Closed bool
	Error  *Error
}

func (*Detach) descriptor() Descriptor { return DescDetach }

func (p *Detach) decode(f *fields) {
	*p = Detach{}
	if f.must("detach.handle") {
		p.Handle = f.r.uint()
	}
	p.Closed = f.boolField("detach.closed")
	p.Error = f.errorField("detach.error")
}

// Append implements [Performative].
func (p *Detach) Append(b []byte) []byte {
	l := listOf(b, DescDetach)
	l.uint(p.Handle)
	l.boolIf(p.Closed)
	l.error(p.Error)
	return l.done()
}

// Source is the source terminus of a link (Part 3, section 3.5.3).
type Source struct {
	Address               string
	HasAddress            bool
	Durable               uint32 // 0 none, 1 configuration, 2 unsettled-state
	ExpiryPolicy          Symbol // "" = session-end
	Timeout               uint32 // seconds
	Dynamic               bool
	DynamicNodeProperties Raw
	DistributionMode      Symbol // "move", "copy" or ""
	Filter                Raw
	DefaultOutcome        Raw
	Outcomes              []Symbol
	Capabilities          []Symbol
}

// Target is the target terminus of a link (Part 3, section 3.5.4). Without an
// address and not dynamic it is the anonymous terminus.
type Target struct {
	Address               string
	HasAddress            bool
	Durable               uint32
	ExpiryPolicy          Symbol
	Timeout               uint32
	Dynamic               bool
	DynamicNodeProperties Raw
	Capabilities          []Symbol
}

func (f *fields) sourceField(name string) *Source {
	if !f.next(name) {
		return nil
	}
	at := f.r.off
	if d := f.r.descriptor(); f.r.err == nil && d != DescSource {
		f.r.failAt(at, "descriptor %v where a source is expected", d)
	}
	in := openFields(f.r)
	s := &Source{}
	if in.next("source.address") {
		s.Address, s.HasAddress = f.r.string(), true
	}
	s.Durable = in.uintOr("source.durable", 0)
	if in.next("source.expiry-policy") {
		s.ExpiryPolicy = f.r.symbol()
	}
	s.Timeout = in.uintOr("source.timeout", 0)
	s.Dynamic = in.boolField("source.dynamic")
	s.DynamicNodeProperties = in.mapField("source.dynamic-node-properties")
	if in.next("source.distribution-mode") {
		s.DistributionMode = f.r.symbol()
	}
	s.Filter = in.mapField("source.filter")
	s.DefaultOutcome = in.rawField("source.default-outcome")
	s.Outcomes = in.symbolsField("source.outcomes")
	s.Capabilities = in.symbolsField("source.capabilities")
	in.close()
	return s
}

func (f *fields) receiverMode() ReceiverSettleMode {
	at := f.r.off
	m := ReceiverSettleMode(f.r.ubyte())
	if m > ReceiverSecond {
		f.r.failAt(at, "settle mode %d", m)
	}
	return m
}

func (f *fields) targetField(name string) (t *Target, coordinator bool) {
	if !f.next(name) {
		return nil, false
	}
	at := f.r.off
	d := f.r.descriptor()
	switch {
	case f.r.err != nil:
		return nil, false
	case d == DescCoordinator:
		in := openFields(f.r)
		in.close()
		return nil, true
	case d != DescTarget:
		f.r.failAt(at, "descriptor %v where a target is expected", d)
		return nil, false
	}
	in := openFields(f.r)
	t = &Target{}
	if in.next("target.address") {
		t.Address, t.HasAddress = f.r.string(), true
	}
	t.Durable = in.uintOr("target.durable", 0)
	if in.next("target.expiry-policy") {
		t.ExpiryPolicy = f.r.symbol()
	}
	t.Timeout = in.uintOr("target.timeout", 0)
	t.Dynamic = in.boolField("target.dynamic")
	t.DynamicNodeProperties = in.mapField("target.dynamic-node-properties")
	t.Capabilities = in.symbolsField("target.capabilities")
	in.close()
	return t, false
}

// Append appends the described source.
func (s *Source) Append(b []byte) []byte {
	l := listOf(b, DescSource)
	l.string(s.Address, s.HasAddress || s.Address != "")
	l.uintIf(s.Durable, s.Durable != 0)
	l.symbol(s.ExpiryPolicy)
	l.uintIf(s.Timeout, s.Timeout != 0)
	l.boolIf(s.Dynamic)
	l.raw(s.DynamicNodeProperties)
	l.symbol(s.DistributionMode)
	l.raw(s.Filter)
	l.raw(s.DefaultOutcome)
	l.symbols(s.Outcomes)
	l.symbols(s.Capabilities)
	return l.done()
}

// Append appends the described target.
func (t *Target) Append(b []byte) []byte {
	l := listOf(b, DescTarget)
	l.string(t.Address, t.HasAddress || t.Address != "")
	l.uintIf(t.Durable, t.Durable != 0)
	l.symbol(t.ExpiryPolicy)
	l.uintIf(t.Timeout, t.Timeout != 0)
	l.boolIf(t.Dynamic)
	l.raw(t.DynamicNodeProperties)
	l.symbols(t.Capabilities)
	return l.done()
}

func (m SenderSettleMode) String() string {
	if int(m) < 3 {
		return [...]string{"unsettled", "settled", "mixed"}[m]
	}
	return fmt.Sprintf("SenderSettleMode(%d)", uint8(m))
}

func (m ReceiverSettleMode) String() string {
	if int(m) < 2 {
		return [...]string{"first", "second"}[m]
	}
	return fmt.Sprintf("ReceiverSettleMode(%d)", uint8(m))
}
