package amqp

// Begin opens a session (Part 2, section 2.7.2).
type Begin struct {
	RemoteChannel       uint16
	HasRemoteChannel    bool // set in the answer to a begin
	NextOutgoingID      uint32
	IncomingWindow      uint32 // transfer frames
	OutgoingWindow      uint32 // transfer frames
	HandleMax           uint32 // 4294967295 when absent
	OfferedCapabilities []Symbol
	DesiredCapabilities []Symbol
	Properties          Raw
}

func (*Begin) descriptor() Descriptor { return DescBegin }

func (p *Begin) decode(f *fields) {
	*p = Begin{HandleMax: 1<<32 - 1}
	if f.next("begin.remote-channel") {
		p.RemoteChannel, p.HasRemoteChannel = f.r.ushort(), true
	}
	if f.must("begin.next-outgoing-id") {
		p.NextOutgoingID = f.r.uint()
	}
	if f.must("begin.incoming-window") {
		p.IncomingWindow = f.r.uint()
	}
	if f.must("begin.outgoing-window") {
		p.OutgoingWindow = f.r.uint()
	}
	p.HandleMax = f.uintOr("begin.handle-max", p.HandleMax)
	p.OfferedCapabilities = f.symbolsField("begin.offered-capabilities")
	p.DesiredCapabilities = f.symbolsField("begin.desired-capabilities")
	p.Properties = f.mapField("begin.properties")
}

// Append implements [Performative].
func (p *Begin) Append(b []byte) []byte {
	l := listOf(b, DescBegin)
	if p.HasRemoteChannel {
		l.set(AppendUshort(l.b, p.RemoteChannel))
	} else {
		l.null()
	}
	l.uint(p.NextOutgoingID)
	l.uint(p.IncomingWindow)
	l.uint(p.OutgoingWindow)
	l.uintIf(p.HandleMax, p.HandleMax != 1<<32-1)
	l.symbols(p.OfferedCapabilities)
	l.symbols(p.DesiredCapabilities)
	l.raw(p.Properties)
	return l.done()
}

// End ends a session (Part 2, section 2.7.8).
type End struct{ Error *Error }

func (*End) descriptor() Descriptor { return DescEnd }

func (p *End) decode(f *fields) { p.Error = f.errorField("end.error") }

// Append implements [Performative].
func (p *End) Append(b []byte) []byte {
	l := listOf(b, DescEnd)
	l.error(p.Error)
	return l.done()
}

// Flow updates session windows and, with a handle, link credit (Part 2,
// section 2.7.4).
type Flow struct {
	NextIncomingID    uint32
	HasNextIncomingID bool // absent until the peer's begin was seen
	IncomingWindow    uint32
	NextOutgoingID    uint32
	OutgoingWindow    uint32
	Handle            uint32
	HasHandle         bool
	DeliveryCount     uint32
	HasDeliveryCount  bool
	LinkCredit        uint32
	HasLinkCredit     bool
	Available         uint32
	HasAvailable      bool
	Drain             bool
	Echo              bool
	Properties        Raw
}

func (*Flow) descriptor() Descriptor { return DescFlow }

func (p *Flow) decode(f *fields) {
	*p = Flow{}
	if f.next("flow.next-incoming-id") {
		p.NextIncomingID, p.HasNextIncomingID = f.r.uint(), true
	}
	if f.must("flow.incoming-window") {
		p.IncomingWindow = f.r.uint()
	}
	if f.must("flow.next-outgoing-id") {
		p.NextOutgoingID = f.r.uint()
	}
	if f.must("flow.outgoing-window") {
		p.OutgoingWindow = f.r.uint()
	}
	if f.next("flow.handle") {
		p.Handle, p.HasHandle = f.r.uint(), true
	}
	if f.next("flow.delivery-count") {
		p.DeliveryCount, p.HasDeliveryCount = f.r.uint(), true
	}
	if f.next("flow.link-credit") {
		p.LinkCredit, p.HasLinkCredit = f.r.uint(), true
	}
	if f.next("flow.available") {
		p.Available, p.HasAvailable = f.r.uint(), true
	}
	p.Drain = f.boolField("flow.drain")
	p.Echo = f.boolField("flow.echo")
	p.Properties = f.mapField("flow.properties")
}

// Append implements [Performative].
func (p *Flow) Append(b []byte) []byte {
	l := listOf(b, DescFlow)
	l.uintIf(p.NextIncomingID, p.HasNextIncomingID)
	l.uint(p.IncomingWindow)
	l.uint(p.NextOutgoingID)
	l.uint(p.OutgoingWindow)
	l.uintIf(p.Handle, p.HasHandle)
	l.uintIf(p.DeliveryCount, p.HasDeliveryCount)
	l.uintIf(p.LinkCredit, p.HasLinkCredit)
	l.uintIf(p.Available, p.HasAvailable)
	l.boolIf(p.Drain)
	l.boolIf(p.Echo)
	l.raw(p.Properties)
	return l.done()
}
