package amqp

// MaxDeliveryTag is the longest delivery tag in bytes (Part 2, section 2.8.7).
const MaxDeliveryTag = 32

// Transfer carries one frame of a delivery (Part 2, section 2.7.5).
type Transfer struct {
	Handle                uint32
	DeliveryID            uint32
	HasDeliveryID         bool // mandatory in the first frame of a delivery
	DeliveryTag           []byte
	MessageFormat         uint32
	HasMessageFormat      bool
	Settled               bool
	HasSettled            bool
	More                  bool
	ReceiverSettleMode    ReceiverSettleMode
	HasReceiverSettleMode bool
	State                 Raw // encoded delivery state
	Resume                bool
	Aborted               bool
	Batchable             bool
}

func (*Transfer) descriptor() Descriptor { return DescTransfer }

func (p *Transfer) decode(f *fields) {
	*p = Transfer{}
	if f.must("transfer.handle") {
		p.Handle = f.r.uint()
	}
	if f.next("transfer.delivery-id") {
		p.DeliveryID, p.HasDeliveryID = f.r.uint(), true
	}
	if f.next("transfer.delivery-tag") {
		at := f.r.off
		p.DeliveryTag = f.r.binary()
		if len(p.DeliveryTag) > MaxDeliveryTag {
			f.r.failAt(at, "%d bytes, at most %d allowed", len(p.DeliveryTag), MaxDeliveryTag)
		}
	}
	if f.next("transfer.message-format") {
		p.MessageFormat, p.HasMessageFormat = f.r.uint(), true
	}
	if f.next("transfer.settled") {
		p.Settled, p.HasSettled = f.r.bool(), true
	}
	p.More = f.boolField("transfer.more")
	if f.next("transfer.rcv-settle-mode") {
		p.ReceiverSettleMode, p.HasReceiverSettleMode = f.receiverMode(), true
	}
	p.State = f.stateField("transfer.state")
	p.Resume = f.boolField("transfer.resume")
	p.Aborted = f.boolField("transfer.aborted")
	p.Batchable = f.boolField("transfer.batchable")
}

// Append implements [Performative]; the payload follows it in the frame.
func (p *Transfer) Append(b []byte) []byte {
	l := listOf(b, DescTransfer)
	l.uint(p.Handle)
	l.uintIf(p.DeliveryID, p.HasDeliveryID)
	l.binary(p.DeliveryTag)
	l.uintIf(p.MessageFormat, p.HasMessageFormat)
	if p.HasSettled || p.Settled {
		l.set(AppendBool(l.b, p.Settled))
	} else {
		l.null()
	}
	l.boolIf(p.More)
	if p.HasReceiverSettleMode {
		l.set(AppendUbyte(l.b, uint8(p.ReceiverSettleMode)))
	} else {
		l.null()
	}
	l.raw(p.State)
	l.boolIf(p.Resume)
	l.boolIf(p.Aborted)
	l.boolIf(p.Batchable)
	return l.done()
}

// Disposition tells state and settlement of a range of deliveries (Part 2,
// section 2.7.6).
type Disposition struct {
	Role      Role // of the endpoint that sends it
	First     uint32
	Last      uint32 // equals First when absent
	Settled   bool
	State     Raw
	Batchable bool
}

func (*Disposition) descriptor() Descriptor { return DescDisposition }

func (p *Disposition) decode(f *fields) {
	*p = Disposition{}
	if f.must("disposition.role") {
		p.Role = Role(f.r.bool())
	}
	if f.must("disposition.first") {
		p.First = f.r.uint()
	}
	p.Last = f.uintOr("disposition.last", p.First)
	p.Settled = f.boolField("disposition.settled")
	p.State = f.stateField("disposition.state")
	p.Batchable = f.boolField("disposition.batchable")
}

// Append implements [Performative].
func (p *Disposition) Append(b []byte) []byte {
	l := listOf(b, DescDisposition)
	l.set(AppendBool(l.b, bool(p.Role)))
	l.uint(p.First)
	l.uintIf(p.Last, p.Last != p.First)
	l.boolIf(p.Settled)
	l.raw(p.State)
	l.boolIf(p.Batchable)
	return l.done()
}

// stateField returns an encoded delivery state, checked to be a described list.
func (f *fields) stateField(name string) Raw {
	if !f.next(name) {
		return nil
	}
	at := f.r.off
	f.r.descriptor()
	if f.r.err != nil {
		return nil
	}
	if c := f.r.peek(); c != codeList0 && c != codeList8 && c != codeList32 {
		f.r.off++
		f.r.wrong(c, "a list")
		return nil
	}
	f.r.skip()
	if f.r.err != nil {
		return nil
	}
	return Raw(f.r.buf[at:f.r.off:f.r.off])
}

// The terminal outcomes that carry nothing, encoded.
var (
	StateAccepted = Raw{codeDescribed, codeSmallUlong, byte(DescAccepted), codeList0}
	StateReleased = Raw{codeDescribed, codeSmallUlong, byte(DescReleased), codeList0}
	// StateDeliveryFailed is modified(delivery-failed=true).
	StateDeliveryFailed = Raw{codeDescribed, codeSmallUlong, byte(DescModified), codeList8, 2, 1, codeTrue}
)

// StateKind returns the descriptor of an encoded delivery state, 0 for none.
func (r Raw) StateKind() Descriptor {
	if len(r) == 0 {
		return 0
	}
	d, err := PeekDescriptor(r)
	if err != nil {
		return 0
	}
	return d
}

// Terminal reports whether the state is an outcome, not a progress report.
func (r Raw) Terminal() bool {
	k := r.StateKind()
	return k >= DescAccepted && k <= DescModified
}

// AppendRejected appends a rejected outcome with the error, which may be nil.
func AppendRejected(b []byte, e *Error) []byte {
	l := listOf(b, DescRejected)
	l.error(e)
	return l.done()
}

// Modified is the modified outcome (Part 3, section 3.4.5).
type Modified struct {
	DeliveryFailed     bool
	UndeliverableHere  bool
	MessageAnnotations Raw
}

// Append appends the described outcome.
func (m *Modified) Append(b []byte) []byte {
	l := listOf(b, DescModified)
	l.boolIf(m.DeliveryFailed)
	l.boolIf(m.UndeliverableHere)
	l.raw(m.MessageAnnotations)
	return l.done()
}

// Received is the non-terminal state that tells how far a delivery got (Part 3,
// section 3.4.1).
type Received struct {
	SectionNumber uint32
	SectionOffset uint64
}

// Append appends the described state.
func (s *Received) Append(b []byte) []byte {
	l := listOf(b, DescReceived)
	l.uint(s.SectionNumber)
	l.set(AppendUlong(l.b, s.SectionOffset))
	return l.done()
}

// DecodeState decodes a delivery state: nil, *Received, Accepted, *Rejected,
// Released or *Modified. Transactional states are an error: there are none here.
func DecodeState(b Raw) (any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r := reader{buf: b, field: "state"}
	d := r.descriptor()
	f := openFields(&r)
	var v any
	switch d {
	case DescAccepted:
		v = Accepted{}
	case DescReleased:
		v = Released{}
	case DescRejected:
		v = &Rejected{Error: f.errorField("rejected.error")}
	case DescModified:
		m := &Modified{DeliveryFailed: f.boolField("modified.delivery-failed")}
		m.UndeliverableHere = f.boolField("modified.undeliverable-here")
		m.MessageAnnotations = f.mapField("modified.message-annotations")
		v = m
	case DescReceived:
		s := &Received{}
		if f.must("received.section-number") {
			s.SectionNumber = r.uint()
		}
		if f.must("received.section-offset") {
			s.SectionOffset = r.ulong()
		}
		v = s
	default:
		r.failAt(0, "%v is no delivery state", d)
	}
	f.close()
	if r.err == nil && r.left() > 0 {
		r.fail("%d bytes behind the state", r.left())
	}
	if r.err != nil {
		return nil, r.err
	}
	return v, nil
}

// Accepted and Released are outcomes without content; Rejected may tell why.
type (
	Accepted struct{}
	Released struct{}
	Rejected struct{ Error *Error }
)
